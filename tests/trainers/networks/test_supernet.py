"""One set of weights, several widths: the slices, the subnets, and their file."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from stepfront.errors import InputError
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.families import build_backbone
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.unet import UNet

WIDTHS = (0.25, 0.375, 0.5, 0.75, 1.0)

# Base 8, multipliers (1, 2), one block: what each block of the up path reads, (from below, skip), at width 1.
CONCATENATED = {"up.0": (16, 16), "up.1": (16, 8), "up.3": (16, 8), "up.4": (8, 8)}


@pytest.fixture(scope="module")
def supernet(network: NetworkSettings, random_supernet: Callable[..., Supernet]) -> Supernet:
    return random_supernet(network)


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


T = torch.tensor([0.0, 37.0, 999.0])


def expected_columns(name: str, axis: int, count: int, width: float) -> list[int]:
    """Return the columns that a width owns, a second time: by name, not by the layers' own segments."""
    block = ".".join(name.split(".")[:2])
    is_input = axis == 1 if ("conv1" in name or "shortcut" in name) else "norm1" in name
    if block in CONCATENATED and is_input:
        below, skip = CONCATENATED[block]
        return [*range(int(below * width)), *range(below, below + int(skip * width))]
    if "qkv" in name and axis == 0:
        third = count // 3
        return [part * third + i for part in range(3) for i in range(int(third * width))]
    whole = (name == "time.0.weight" and axis == 1) or (name == "head.weight" and axis == 1)
    whole |= name.startswith("tail.2") and axis == 0
    return list(range(count if whole else int(count * width)))


@pytest.mark.parametrize("width", WIDTHS)
def test_every_parameter_owns_the_right_columns(supernet: Supernet, width: float) -> None:
    sliced = supernet.sliced(width)
    wide = dict(supernet.widest.named_parameters())
    assert sliced.keys() == wide.keys()
    for name, weights in wide.items():
        expected = weights
        for axis in range(min(2, weights.ndim)):
            columns = torch.tensor(expected_columns(name, axis, weights.shape[axis], width))
            expected = expected.index_select(axis, columns)
        assert torch.equal(sliced[name], expected), name


@pytest.mark.parametrize("width", WIDTHS)
def test_subnet_computes_exactly_what_the_supernet_computes(supernet: Supernet, x: Tensor, width: float) -> None:
    with torch.no_grad():
        computed = supernet.subnet(width)(x, T)
        assert torch.equal(computed, supernet(x, T, width))
    assert computed.std() > 0.01


def test_widths_compute_different_things(supernet: Supernet, x: Tensor) -> None:
    with torch.no_grad():
        outputs = [supernet(x, T, width) for width in WIDTHS]
    for i, output in enumerate(outputs):
        assert all((output - other).abs().max() > 0.1 for other in outputs[:i])


def test_width_one_is_the_plain_network(network: NetworkSettings, supernet: Supernet, x: Tensor) -> None:
    plain = build_backbone(network, 1, 8, 1.0).eval()
    plain.load_state_dict(supernet.widest.state_dict())
    with torch.no_grad():
        assert torch.equal(plain(x, T), supernet(x, T, 1.0))
        assert torch.equal(plain(x, T), supernet.subnet(1.0)(x, T))


@pytest.mark.parametrize("width", WIDTHS)
def test_subnet_is_a_plain_network_with_contiguous_weights(supernet: Supernet, width: float) -> None:
    subnet = supernet.subnet(width)
    assert type(subnet) is UNet
    assert not subnet.training
    kinds = {type(module) for module in subnet.modules() if not list(module.children())}
    assert kinds <= {nn.Conv2d, nn.Linear, nn.GroupNorm, nn.SiLU, nn.Dropout, nn.Identity}
    for weights in subnet.parameters():
        assert weights.is_contiguous()
        assert not weights.requires_grad
        if width < 1:
            assert weights.untyped_storage().nbytes() == weights.numel() * 4  # its own memory, no view of the wide one


def test_a_narrow_subnet_is_not_touched_by_further_training(
    network: NetworkSettings, random_supernet: Callable[..., Supernet], x: Tensor
) -> None:
    supernet = random_supernet(network)
    subnet = supernet.subnet(0.5)
    before = subnet(x, T)
    with torch.no_grad():
        for weights in supernet.parameters():
            weights.add_(1)
    assert torch.equal(subnet(x, T), before)


def test_segment_slicing_gives_a_narrow_decoder_its_own_skip(supernet: Supernet) -> None:
    wide = supernet.widest.get_parameter("up.1.conv1.weight")  # reads 16 from below and 8 from the skip
    by_hand = torch.cat([wide[:8, :8], wide[:8, 16:20]], dim=1)
    assert torch.equal(supernet.subnet(0.5).get_parameter("up.1.conv1.weight"), by_hand)


def test_prefix_slicing_reads_the_first_columns_as_ddsm_does(
    network: NetworkSettings, random_supernet: Callable[..., Supernet], supernet: Supernet, x: Tensor
) -> None:
    prefix = random_supernet(network.model_copy(update={"skips": "prefix"}))
    wide = prefix.widest.get_parameter("up.1.conv1.weight")
    assert torch.equal(prefix.subnet(0.5).get_parameter("up.1.conv1.weight"), wide[:8, :12])
    with torch.no_grad():
        assert torch.equal(prefix.subnet(0.5)(x, T), prefix(x, T, 0.5))
        assert torch.equal(prefix(x, T, 1.0), supernet(x, T, 1.0))  # at full width the rule can't matter
        assert not torch.equal(prefix(x, T, 0.5), supernet(x, T, 0.5))


@pytest.mark.parametrize("width", WIDTHS[:-1])
def test_gradients_of_a_narrow_width_touch_its_own_slices_alone(
    network: NetworkSettings, random_supernet: Callable[..., Supernet], x: Tensor, width: float
) -> None:
    supernet = random_supernet(network)
    supernet(x, T, width).square().sum().backward()
    for name, weights in supernet.widest.named_parameters():
        owned = torch.zeros_like(weights, dtype=torch.bool)
        axes = [expected_columns(name, axis, weights.shape[axis], width) for axis in range(min(2, weights.ndim))]
        owned[torch.meshgrid(*map(torch.tensor, axes), indexing="ij")] = True
        assert weights.grad is not None, name
        assert not weights.grad[~owned].any(), name
        assert weights.grad[owned].any(), name


def test_dropout_is_active_at_every_width_in_training_alone(
    network: NetworkSettings, random_supernet: Callable[..., Supernet], x: Tensor
) -> None:
    supernet = random_supernet(network.model_copy(update={"dropout": 0.5}))
    with torch.no_grad():
        for width in WIDTHS:
            supernet.train()
            assert not torch.equal(supernet(x, T, width), supernet(x, T, width))
            supernet.eval()
            assert torch.equal(supernet(x, T, width), supernet(x, T, width))
            assert torch.equal(supernet(x, T, width), supernet.subnet(width)(x, T))


def test_the_parameters_of_a_supernet_are_those_of_its_widest_network(
    network: NetworkSettings, supernet: Supernet
) -> None:
    plain = build_backbone(network, 1, 8, 1.0)
    assert sum(p.numel() for p in supernet.parameters()) == sum(p.numel() for p in plain.parameters())


def test_unknown_width_names_the_possible_ones(supernet: Supernet, x: Tensor) -> None:
    for call in (lambda: supernet.subnet(0.6), lambda: supernet(x, T, 0.6)):
        with pytest.raises(InputError, match=r"0\.6 is not one.*0\.25, 0\.375, 0\.5, 0\.75, 1\.0"):
            call()


def test_prefix_slicing_leaves_queries_keys_and_values_apart(
    network: NetworkSettings, random_supernet: Callable[..., Supernet]
) -> None:
    prefix = random_supernet(network.model_copy(update={"skips": "prefix"}))
    wide = prefix.widest.get_parameter("middle.0.attention.qkv.weight")
    channels = wide.shape[1]
    own = channels // 2
    parts = [wide[i * channels : i * channels + own, :own] for i in range(3)]
    assert torch.equal(prefix.subnet(0.5).get_parameter("middle.0.attention.qkv.weight"), torch.cat(parts))
