"""Deep features of an earlier call: the same numbers on the same input, and exactly counted costs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from stepfront.errors import InputError
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.inference.cost import count_width, plan_gflops, plan_latency_ms
from stepfront.trainers.inference.engine import Engine
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.deep_features import check_splits
from stepfront.trainers.networks.families import build_backbone
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.variant import parse_variants

LEVELS = NetworkSettings(
    base=8, multipliers=(1, 2, 2), attention=(4,), groups=4, group_channels=2, blocks=2, widths=(0.5, 1.0)
)
CPU = torch.device("cpu")
Make = Callable[..., Supernet]


def inputs(classes: bool = False) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    given: tuple[Tensor, ...] = (torch.randn(3, 1, 8, 8, generator=generator), torch.tensor([3.0, 400.0, 999.0]))
    return (*given, torch.tensor([0, 2, 4])) if classes else given


@pytest.mark.parametrize("name", ["plain", "channels_last", "winograd"])
@pytest.mark.parametrize("prediction", ["epsilon", "v", "flow"])
@pytest.mark.parametrize("classes", [None, 4])
@torch.inference_mode()
def test_reuse_on_the_same_input_is_the_full_call_bit_for_bit(
    random_supernet: Make, name: str, prediction: str, classes: int | None
) -> None:
    supernet = random_supernet(LEVELS.model_copy(update={"classes": classes}))
    supernet = Supernet(supernet.settings, 1, 8, DiffusionSettings(prediction=prediction)).eval()  # type: ignore[arg-type]
    supernet.widest.load_state_dict(random_supernet(supernet.settings).widest.state_dict())
    given = inputs(classes is not None)
    for width in supernet.widths:
        running = Engine(name=name).run(supernet.subnet(width), CPU, 3)  # type: ignore[arg-type]
        assert running.splits
        eps, deep = running.with_features(*given)
        assert torch.equal(eps, running(*given))
        assert torch.equal(running.reusing(deep, *given), eps)
        assert not torch.equal(running.reusing(deep + 1, *given), eps), "the features matter"
        other = running.reusing(deep, given[0] + 1, *given[1:])
        assert not torch.equal(other, eps), "the outermost level is computed again"


@torch.inference_mode()
def test_bfloat16_keeps_its_features_without_loss(random_supernet: Make) -> None:
    running = Engine(precision="bfloat16").run(random_supernet(LEVELS).subnet(1.0), CPU, 3)
    eps, deep = running.with_features(*inputs())
    assert deep.dtype == torch.float32  # as it travels between processes
    assert torch.equal(running.reusing(deep, *inputs()), eps)


@torch.inference_mode()
def test_only_the_outermost_level_runs(random_supernet: Make) -> None:
    network = random_supernet(LEVELS).subnet(1.0)
    _, deep = network.with_features(*inputs())  # type: ignore[operator]
    ran: list[str] = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    network.reusing(deep, *inputs())  # type: ignore[operator]
    # Two blocks before the first halving; three behind the last doubling, of 3 + 1 + 3 + 1 + 3 modules; the tail.
    levels = {".".join(name.split(".")[:2]) for name in ran}
    assert levels == {"head", "down.0", "down.1", "up.8", "up.9", "up.10", "tail.2"}


@pytest.mark.parametrize("width", [0.5, 1.0])
def test_counted_macs_are_those_of_the_layers_that_run_again(width: float) -> None:
    """A full call less those of the layers below, each counted by its shapes: convolutions, linear maps, attention."""
    cost = count_width(LEVELS, 1, 8, width)
    assert cost.reuse_macs is not None
    network = build_backbone(LEVELS, 1, 8, width).eval()
    macs = {"below": 0, "outermost": 0}

    def add(name: str) -> Callable[..., None]:
        where = "outermost" if name.split(".")[0] in ("head", "tail", "time") or _is_outermost(name) else "below"

        def hook(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
            if isinstance(module, nn.Conv2d):
                macs[where] += made.numel() * module.in_channels * module.kernel_size[0] ** 2
            elif isinstance(module, nn.Linear):
                macs[where] += made.numel() * module.in_features
            elif type(module).__name__ == "Attention":
                _, channels, height, across = made.shape
                macs[where] += 2 * channels * (height * across) ** 2

        return hook

    for name, module in network.named_modules():
        module.register_forward_hook(add(name))
    with torch.no_grad():
        network(torch.zeros(1, 1, 8, 8), torch.zeros(1))
    assert macs["below"] + macs["outermost"] == cost.macs
    assert macs["outermost"] == cost.reuse_macs
    assert macs["below"] > 0


def _is_outermost(name: str) -> bool:
    path, place = name.split(".")[0], name.split(".")[1] if "." in name else ""
    return (path == "down" and place in ("0", "1")) or (path == "up" and place in ("8", "9", "10"))


def test_a_network_of_one_level_has_no_cost_of_reuse() -> None:
    assert count_width(LEVELS.model_copy(update={"multipliers": (1,), "attention": ()}), 1, 8, 1.0).reuse_macs is None


def test_a_plans_cost_is_the_sum_over_its_variants_calls() -> None:
    measured = {"latency_ms": 3.0, "reuse_latency_ms": 1.0, "calls": 2}
    cost = count_width(LEVELS, 1, 8, 1.0).model_copy(update=measured)
    assert cost.reuse_macs is not None
    plan = Plan.of((5.0, 4.0, 3.0, 2.0, 1.0), parse_variants("1x1.00 1x1.00r 1x1.00u 2x1.00ru"))
    macs = (2 + 1) * cost.macs + (2 + 1 + 1) * cost.reuse_macs
    assert plan_gflops(plan, {1.0: cost}) == pytest.approx(2e-9 * macs, rel=1e-12)
    assert plan_latency_ms(plan, {1.0: cost}) == 3 * 3.0 + 4 * 1.0


@pytest.mark.parametrize("family", ["spectral", "ode"])
@torch.inference_mode()
def test_families_made_of_its_parts_reuse_features_too(random_supernet: Make, family: str) -> None:
    settings = LEVELS.model_copy(update={"family": family})
    network = random_supernet(settings).subnet(0.5)
    eps, deep = network.with_features(*inputs())  # type: ignore[operator]
    assert torch.equal(network.reusing(deep, *inputs()), eps)  # type: ignore[operator]
    assert count_width(settings, 1, 8, 0.5).reuse_macs


def test_a_network_that_cannot_split_is_refused() -> None:
    with pytest.raises(InputError, match=r"the plan 1x1\.00r reuses .* families unet, spectral and ode with two"):
        check_splits(object(), "the plan 1x1.00r")
