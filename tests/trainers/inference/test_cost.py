"""MACs and parameters are counted; what they should be is known."""

import math

import pytest
import torch
from torch import Tensor, nn

from stepfront.errors import InputError
from stepfront.trainers.devices import device_name, pick_device
from stepfront.trainers.diffusion.plan import SKIP, Plan
from stepfront.trainers.inference.cost import (
    DepthCost,
    Latency,
    WidthCost,
    count_width,
    largest_batch,
    latency_doubt,
    measure_latency,
    plan_gflops,
    plan_latency_ms,
)
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.variant import Variant, parse_variants

DDSM = NetworkSettings(base=128, multipliers=(1, 2, 2, 2), blocks=2, attention=(16,))


@pytest.mark.parametrize(
    ("width", "macs"),
    [(1.0, 6_221_856_768), (0.75, 3_532_615_680), (0.5, 1_599_225_856), (0.25, 421_687_296)],
)
def test_macs_of_ddsms_network(width: float, macs: int) -> None:
    assert count_width(DDSM, 3, 32, width).macs == macs


def test_parameters_of_ddsms_network() -> None:
    assert count_width(DDSM, 3, 32, 1.0).parameters == 35_746_307


@pytest.mark.parametrize("width", [0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("image_channels", [1, 3])
def test_macs_and_parameters_of_a_tiny_network_in_closed_form(width: float, image_channels: int) -> None:
    base, pixels, k = 8, 16, image_channels
    c = int(base * width)
    cost = count_width(NetworkSettings(base=base, multipliers=(1,)), k, 4, width)

    time = base * 4 * c + (4 * c) ** 2
    block = (9 * c * c + 9 * c * c) * pixels + 4 * c * c
    attention = 4 * c * c * pixels + 2 * c * pixels**2  # q, k, v and out; the two products
    up = (9 * 2 * c * c + 9 * c * c + 2 * c * c) * pixels + 4 * c * c  # two inputs, and a shortcut from both
    assert cost.macs == 9 * k * c * pixels + time + 3 * block + attention + 2 * up + 9 * c * k * pixels

    # each convolution and linear map has a bias an output, each norm two numbers a channel
    time = (base + 1) * 4 * c + (4 * c + 1) * 4 * c
    block = 2 * (9 * c + 1) * c + (4 * c + 1) * c + 4 * c
    attention = 4 * (c + 1) * c + 2 * c
    up = (18 * c + 1) * c + (9 * c + 1) * c + (2 * c + 1) * c + (4 * c + 1) * c + 2 * 2 * c + 2 * c
    assert cost.parameters == (9 * k + 1) * c + time + 3 * block + attention + 2 * up + 2 * c + (9 * c + 1) * k


COSTS = {
    0.5: WidthCost(width=0.5, macs=1_000_000, parameters=1, latency_ms=0.25),
    1.0: WidthCost(width=1.0, macs=4_000_000, parameters=1, latency_ms=1.5),
}


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_a_uniform_plan_costs_its_steps_times_two_macs(steps: int) -> None:
    plan = Plan(tuple(float(t) for t in range(steps, 0, -1)), (1.0,) * steps)
    assert plan_gflops(plan, COSTS) == pytest.approx(steps * 2 * 4e6 / 1e9, rel=1e-12)
    assert plan_latency_ms(plan, COSTS) == pytest.approx(steps * 1.5)


def test_a_plan_costs_the_sum_of_its_steps_and_a_skip_nothing() -> None:
    plan = Plan((4.0, 3.0, 2.0, 1.0), (0.5, SKIP, 1.0, 0.5))
    assert plan_gflops(plan, COSTS) == pytest.approx(2 * 6e6 / 1e9)
    assert plan_latency_ms(plan, COSTS) == pytest.approx(2.0)


def test_plans_of_the_same_steps_in_another_order_cost_exactly_the_same() -> None:
    costs = {width: count_width(DDSM, 3, 32, width) for width in (0.25, 0.5, 0.75, 1.0)}
    steps = (0.25, 0.5, 0.5, 0.75, 1.0, 0.25, 1.0, 0.5, 0.75, 0.75)
    orders = [tuple(torch.tensor(steps)[torch.randperm(10)].tolist()) for _ in range(50)]
    times = [0.99 - 0.1 * i for i in range(10)]
    assert len({plan_gflops(Plan.of(times, [Variant(w) for w in order], "ddim"), costs) for order in orders}) == 1


def test_latency_of_a_plan_is_unknown_where_that_of_a_width_is() -> None:
    unmeasured = COSTS | {0.5: WidthCost(width=0.5, macs=1, parameters=1)}
    assert math.isnan(plan_latency_ms(Plan((2.0, 1.0), (1.0, 0.5)), unmeasured))
    assert plan_latency_ms(Plan((2.0, 1.0), (1.0, SKIP)), unmeasured) == 1.5


def test_latency_is_the_median_of_the_runs_after_the_warm_up_per_image(monkeypatch: pytest.MonkeyPatch) -> None:
    durations = iter([9.0, 9.0, 0.001, 5.0, 0.002, 0.003, 0.002])  # two warm-up calls; one later run stumbles
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    batches = []

    class Still(nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            nonlocal now
            now += next(durations)
            batches.append((tuple(x.shape), tuple(t.shape)))
            return x

    ms = measure_latency(Still(), (1, 4, 4), 4, torch.device("cpu"), runs=5)
    assert ms == pytest.approx(1000 * 0.002 / 4)
    assert batches == [((4, 1, 4, 4), (4,))] * 7


def test_devices_have_names_that_tell_them_apart() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert device_name(torch.device("cpu")) == "cpu, 1 thread"  # as the tests run


@pytest.mark.parametrize(
    ("fits", "most", "expected"), [(1024, 512, 512), (1023, 512, 256), (600, 300, 300), (2, 512, 1)]
)
def test_the_largest_batch_is_one_of_which_two_fit(fits: int, most: int, expected: int) -> None:
    seen: list[int] = []

    def network(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        seen.append(len(x))
        assert len(t) == len(label) == len(x)
        if len(x) > fits:
            raise torch.OutOfMemoryError("no room")
        return x

    assert largest_batch(network, (1, 4, 4), most, torch.device("cpu"), 0.5, 0) == expected
    assert seen[-1] == 2 * expected
    assert max(seen[:-1], default=2 * most) == 2 * most


def test_a_device_with_no_room_for_two_images_says_so() -> None:
    def network(x: Tensor, t: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(InputError, match="two images do not fit into 50% of the memory of cpu"):
        largest_batch(network, (1, 4, 4), 16, torch.device("cpu"), 0.5)


def test_latencies_that_differ_or_fall_with_the_width_are_doubted() -> None:
    def costs(*latencies: tuple[float, float]) -> dict[float, WidthCost]:
        widths = (0.5, 0.75, 1.0)
        return {
            w: WidthCost(width=w, macs=1, parameters=1, latency_ms=ms, latency_spread=spread)
            for w, (ms, spread) in zip(widths, latencies, strict=True)
        }

    assert latency_doubt(costs((1, 0.02), (2, 0.05), (3, 0.1))) == ""
    assert latency_doubt(costs((1, 0.02), (2, 0.5), (3, 0.1))) == "runs of width 0.75 differ by 50% (half of them)"
    assert latency_doubt(costs((1, 0), (4, 0), (2, 0))) == "width 0.75 takes 2 times as long as width 1"
    assert latency_doubt({1.0: WidthCost(width=1.0, macs=1, parameters=1)}) == ""
    quiet = costs((1, 0.02), (2, 0.05), (3, 0.1))
    shallower = (DepthCost(depth=1, macs=1, parameters=1, latency_ms=1.0, latency_spread=0.6),)
    noisy = quiet | {0.5: quiet[0.5].model_copy(update={"shallower": shallower})}
    assert latency_doubt(noisy) == "runs of width 0.5 at depth 1 differ by 60% (half of them)"
    noisy = noisy | {1.0: quiet[1.0].model_copy(update={"reuse_latency_ms": 1.0, "reuse_latency_spread": 0.7})}
    assert latency_doubt(noisy) == "runs of width 1 with reuse differ by 70% (half of them)"


def test_a_disturbed_measurement_is_repeated_and_the_quietest_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from stepfront.trainers.inference import engine_choice

    given = iter([[Latency(9, 0.9), Latency(1, 0.01)], [Latency(3, 0.1), Latency(5, 0.5)]])
    monkeypatch.setattr(engine_choice, "measure_latencies", lambda *args, **kwargs: next(given))
    bench = engine_choice.Bench(lambda width: torch.nn.Identity(), (1.0,), [], torch.device("cpu"))
    assert bench._latencies([], (1, 8, 8), 2, ()) == [Latency(3, 0.1), Latency(1, 0.01)]


def test_a_full_step_costs_more_where_the_next_one_reuses_its_features() -> None:
    cost = WidthCost(width=1.0, macs=1, parameters=1, latency_ms=1.0, reuse_latency_ms=0.5, calls=2)
    eager = cost.model_copy(update={"keep_latency_ms": 3.0})
    times = (5.0, 4.0, 3.0, 2.0, 1.0)

    def latency(text: str, given: WidthCost) -> float:
        return plan_latency_ms(Plan.of(times, parse_variants(text)), {1.0: given})

    assert latency("2x1.00 2x1.00r 1x1.00", cost) == 2 * (1 + 1 + 0.5 + 0.5 + 1)
    assert latency("2x1.00 2x1.00r 1x1.00", eager) == 2 * (1 + 3 + 0.5 + 0.5 + 1), "the second step keeps them"
    assert latency("1x1.00 1xskip 1x1.00r 2x1.00", eager) == 2 * (3 + 0.5 + 1 + 1), "over a skipped step, too"
    assert latency("1x1.00u 1x1.00ru 3x1.00u", eager) == 3 + 0.5 + 3 * 1, "one call each"
    assert latency("5x1.00", eager) == latency("5x1.00", cost) == 2 * 5
