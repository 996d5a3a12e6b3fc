"""Depths of a supernet: networks of fewer inner steps or blocks, their costs, their training, and refusals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.baselines.plain_network import plain_settings, step_macs
from stepfront.trainers.config import DiffusionSettings, TrainerSettings
from stepfront.trainers.data import ImageData
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.network_settings import DitSettings, NetworkSettings
from stepfront.trainers.networks.card import TimeGroups
from stepfront.trainers.networks.families import build_backbone
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import load_supernet
from stepfront.trainers.training.batches import NoisyBatch
from stepfront.trainers.training.sandwich import choose_widths, uses_per_step
from stepfront.trainers.training.trainer import TrainingReport, train_supernet
from stepfront.trainers.training.width_gradients import WidthGradients
from stepfront.trainers.training_settings import TrainingSettings
from stepfront.trainers.variant import Size, Variant

Make = Callable[..., Supernet]
FLOAT32 = torch.autocast("cpu", torch.bfloat16, enabled=False)

ODE = NetworkSettings(
    family="ode",
    base=8,
    multipliers=(1,),
    groups=4,
    group_channels=2,
    widths=(0.5, 1.0),
    inner_steps=3,
    depths=(1, 2, 3),
)
DIT = NetworkSettings(
    family="dit", widths=(0.5, 1.0), depths=(1, 3, 4), dit=DitSettings(patch=2, hidden=16, depth=4, heads=4), classes=3
)
PER_BLOCK = DIT.model_copy(update={"dit": DIT.dit.model_copy(update={"embedders": "per_block", "slim": "inner"})})


def inputs(settings: NetworkSettings) -> tuple[Tensor, ...]:
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return x, torch.tensor([0, 37, 999]), *(() if settings.classes is None else (torch.tensor([0, 2, 3]),))


# --- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [ODE, DIT, PER_BLOCK])
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
@torch.inference_mode()
def test_every_size_is_a_plain_network_that_equals_the_supernet_bit_for_bit(
    random_supernet: Make, settings: NetworkSettings, prediction: Any
) -> None:
    random = random_supernet(settings).widest.state_dict()
    supernet = Supernet(settings, 1, 8, DiffusionSettings(prediction=prediction)).eval()
    supernet.widest.load_state_dict(random)
    x, t, *label = inputs(settings)
    predictions = []
    for width, depth in supernet.sizes:
        predictions.append(supernet(x, t, width, label[0] if label else None, depth))
        assert torch.equal(supernet.subnet(width, depth)(x, t, *label), predictions[-1]), (width, depth)
    assert supernet.sizes[0] == (0.5, settings.depths[0])
    assert supernet.sizes[-1] == Size(1.0)
    for i, one in enumerate(predictions):
        assert not any(torch.equal(one, other) for other in predictions[i + 1 :])


@torch.inference_mode()
def test_a_depth_is_the_network_of_so_many_inner_steps_or_first_blocks(random_supernet: Make) -> None:
    ode, dit = random_supernet(ODE), random_supernet(DIT)
    alone = Supernet(ODE.model_copy(update={"inner_steps": 2, "depths": ()}), 1, 8).eval()
    alone.widest.load_state_dict(ode.widest.state_dict())
    assert torch.equal(ode(*inputs(ODE), 0.5, None, 2), alone(*inputs(ODE), 0.5))
    x, t, label = inputs(DIT)
    shallow = dit(x, t, 1.0, label, 3)
    del dit.widest.blocks[3]  # type: ignore[union-attr]
    assert torch.equal(dit.widest(x, t, label), shallow)


@torch.inference_mode()
def test_groups_of_times_have_depths_too() -> None:
    torch.manual_seed(0)
    supernet = Supernet(DIT, 1, 8, groups=TimeGroups(first=(0, 500))).eval()
    for weights in supernet.widest.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    x, t, label = inputs(DIT)
    for width, depth in supernet.sizes:
        whole = supernet(x, t, width, label, depth)
        torch.testing.assert_close(supernet.subnet(width, depth)(x, t, label), whole)
        group = supernet.subnet(width, depth).networks[1]  # type: ignore[index]
        assert torch.equal(group(x[2:], t[2:], label[2:]), supernet(x[2:], t[2:], width, label[2:], depth))


def test_subnets_of_full_width_share_the_memory_of_the_supernet(random_supernet: Make) -> None:
    supernet = random_supernet(ODE)
    held = {weights.data_ptr() for weights in supernet.widest.parameters()}
    assert all(weights.data_ptr() in held for weights in supernet.subnet(1.0, 1).parameters())


# --- costs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("settings", "alone"), [(ODE, "inner_steps"), (DIT, "dit")])
@pytest.mark.parametrize("width", [0.5, 1.0])
def test_each_depth_costs_what_the_network_of_that_depth_alone_costs(
    settings: NetworkSettings, alone: str, width: float
) -> None:
    cost = count_width(settings, 1, 8, width)
    assert [one.depth for one in cost.shallower] == list(settings.depths[:-1])
    for one in cost.shallower:
        changed = one.depth if alone == "inner_steps" else settings.dit.model_copy(update={"depth": one.depth})
        own = count_width(settings.model_copy(update={alone: changed, "depths": ()}), 1, 8, width)
        assert (one.macs, one.parameters) == (own.macs, own.parameters)
        assert cost.gflops_of(Variant(width, depth=one.depth)) == 2e-9 * own.macs


def test_inner_steps_cost_macs_alone_and_blocks_cost_both(random_supernet: Make) -> None:
    ode, dit = count_width(ODE, 1, 8, 1.0), count_width(DIT, 1, 8, 1.0)
    step = 27 * 8**2 * 5 * 8**2  # a step of a block is 27 C C MACs per pixel, and there are 5 blocks
    assert [ode.macs - one.macs for one in ode.shallower] == [2 * step, step]
    assert {one.parameters for one in ode.shallower} == {ode.parameters}
    # 16 tokens of 16 channels: 12 d d N + 2 N N d, and 6 d d of the modulation (docs/networks.md).
    block = 12 * 16**2 * 16 + 2 * 16**2 * 16 + 6 * 16**2
    assert [dit.macs - one.macs for one in dit.shallower] == [3 * block, block]
    held = sum(weights.numel() for weights in random_supernet(DIT).widest.blocks[0].parameters())  # type: ignore
    assert [dit.parameters - one.parameters for one in dit.shallower] == [3 * held, held]


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["plain", "channels_last"])
@pytest.mark.parametrize("settings", [ODE, DIT])
def test_gradients_of_all_sizes_are_those_of_autograd_through_the_supernet(
    random_supernet: Make, settings: NetworkSettings, engine: Any
) -> None:
    supernet = random_supernet(settings).train().requires_grad_(True)
    x, t, *label = inputs(settings)
    batch = NoisyBatch(x, t, torch.randn(x.shape), label[0] if label else None)
    names, weights = zip(*supernet.widest.named_parameters(), strict=True)
    losses = [F.mse_loss(supernet(x, t, w, batch.label, d), batch.target) for w, d in supernet.sizes]
    expected = torch.autograd.grad(sum(losses), weights)
    gradients = WidthGradients(supernet, engine, FLOAT32)
    for width, depth in supernet.sizes:
        gradients.add(width, batch, batch.target, 1.0, depth=depth)
    for name, own, wanted in zip(names, weights, expected, strict=True):
        torch.testing.assert_close(own.grad, wanted, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("rule", ["sandwich", "single"])
def test_the_sandwich_rule_is_over_pairs_of_width_and_depth(rule: Any) -> None:
    training, generator = TrainingSettings(rule=rule), torch.Generator().manual_seed(0)
    drawn = [choose_widths(training, ODE.sizes, generator) for _ in range(3000)]
    if rule == "sandwich":
        assert {tuple(one[:2]) for one in drawn} == {(Size(1.0), Size(0.5, 1))}
    counted = Counter(size for one in drawn for size in one)
    assert counted.keys() == set(ODE.sizes)
    for size, share in uses_per_step(training, ODE.sizes).items():
        assert counted[size] / 3000 == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("settings", [ODE, DIT.model_copy(update={"classes": None})])
def test_a_training_reports_the_loss_of_every_size_and_resumes_bit_for_bit(
    digits: ImageData, tmp_path: Path, settings: NetworkSettings
) -> None:
    training = TrainingSettings(
        steps=12, batch=16, lr=4e-3, warmup=2, ema=0.5, samples_every=0, held_out_images=32, device="cpu", distill=0.5,
        checkpoint_every=6,
    )  # fmt: skip
    given, reports = TrainerSettings(network=settings, training=training), list[TrainingReport]()
    card = train_supernet(given, digits, tmp_path / "whole", reports.append)
    shallow = {str(size) for size in settings.sizes if size.depth is not None}
    assert card.made_with["depth_losses"].keys() == shallow == reports[-1].depth_losses.keys()
    assert card.made_with["held_out_losses"].keys() == {"0.5", "1.0"}
    assert all(0 < loss < 1 for loss in card.made_with["depth_losses"].values())  # a guess of zero has 1

    def stop(report: TrainingReport) -> None:
        if report.step == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_supernet(given, digits, tmp_path / "parts", stop)
    assert train_supernet(given, digits, tmp_path / "parts").digest == card.digest
    assert load_supernet(tmp_path / "parts")[0].sizes == settings.sizes


def test_a_plain_network_is_trained_for_the_flops_of_all_depths() -> None:
    given = TrainerSettings(network=ODE, training=TrainingSettings(steps=100))
    costs = {width: count_width(ODE, 1, 8, width) for width in ODE.widths}
    between = [costs[w].network_macs(d) for w, d in ODE.sizes[1:-1]]
    assert step_macs(given, 1, 8) == pytest.approx(
        costs[1.0].macs + costs[0.5].network_macs(1) + sum(between) / len(between)
    )
    assert plain_settings(given, 1.0, 1, 8).network.depths == ()


def test_depths_change_no_weight_of_the_complete_network() -> None:
    weights = []
    for settings in (ODE, ODE.model_copy(update={"depths": ()})):
        torch.manual_seed(0)
        weights.append(build_backbone(settings, 1, 8, 1.0).state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_the_full_depth_alone_is_the_setting_left_out() -> None:
    ode = NetworkSettings(family="ode")
    assert NetworkSettings(family="ode", depths=(2,)) == ode
    assert NetworkSettings(family="ode", depths=(2,)).model_dump_json() == ode.model_dump_json()
    with pytest.raises(ValueError, match=r"end in network\.inner_steps, 2"):
        NetworkSettings(family="ode", depths=(1,))


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {"family": "unet", "depths": (1, 2)},
            r"family unet has one depth; network\.depths is for families ode and dit",
        ),
        ({"family": "ode", "depths": (1, 3)}, r"end in network\.inner_steps, 2, such as \[1, 2\]; given: \[1, 3\]"),
        ({"family": "ode", "depths": (2, 1, 2)}, r"depths must ascend and end in network\.inner_steps, 2"),
        ({"family": "dit", "depths": (1, 2)}, r"end in network\.dit\.depth, 4, such as \[1, 4\]; given: \[1, 2\]"),
    ],
)
def test_depths_that_the_network_does_not_have_are_refused_in_a_line(given: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        NetworkSettings(**given)


def test_a_depth_that_was_not_trained_is_refused_in_a_line(random_supernet: Make) -> None:
    supernet = random_supernet(ODE)
    with pytest.raises(InputError, match=r"0\.50d4: depth 4 was not trained; possible: d1, d2, and full depth without"):
        supernet.subnet(0.5, 4)
    with pytest.raises(InputError, match=r"1\.00d3: 3 is the full depth, which has no mark; write 1\.00"):
        supernet(*inputs(ODE), 1.0, None, 3)
    with pytest.raises(InputError, match=r"depth 1 was not trained; possible: full depth alone \(network\.depths\)"):
        Supernet(ODE.model_copy(update={"depths": ()}), 1, 8).subnet(1.0, 1)
    with pytest.raises(InputError, match="has no counted cost at depth 4; possible: 1, 2"):
        count_width(ODE, 1, 8, 1.0).gflops_of(Variant(1.0, depth=4))
