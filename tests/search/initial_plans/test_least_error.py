"""Check the programme over steps and widths against brute force, and against golden figures of times alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stepfront.search.genomes.encodings import SKIP_LEVEL, Encoding, EvenStages, Levels, Stages, Steps
from stepfront.search.initial_plans.least_error import MOST_TIMES, SHARES, least_error_plans, steps_to_measure
from stepfront.testing.gaussians import TwoGaussians
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import noise_schedule
from stepfront.trainers.diffusion.solvers import ddim
from stepfront.trainers.step_losses.step_errors import step_errors

WIDTHS = (0.5, 0.75, 1.0)
COSTS = np.array([0.25, 0.5, 1.0])  # whole numbers of a SHARES-th of a step


def random_errors(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return errors of starting, and of steps that are larger for longer steps and narrower widths."""
    rng = np.random.default_rng(steps)
    length = np.maximum(np.arange(steps + 1)[None] - np.arange(steps)[:, None], 0.1)
    errors = length[:, :, None] ** 2 * rng.random((steps, steps + 1, 3)) * np.array([4.0, 2.0, 1.0])
    return np.sort(rng.random(steps)), errors


def error_of(levels: Levels, encoding: Encoding) -> tuple[float, float]:
    """Return cost and summed error of levels, step by step."""
    widths = np.repeat(levels, encoding.lengths)
    taken = np.flatnonzero(widths != SKIP_LEVEL)
    even = isinstance(encoding, EvenStages)
    start, errors = random_errors(len(taken) if even else encoding.steps)
    places = np.arange(len(taken)) if even else taken
    ends = [*places[1:], len(errors)]
    total = start[places[0]] + sum(errors[i, j, widths[k]] for i, j, k in zip(places, ends, taken, strict=True))
    return float(COSTS[widths[taken]].sum()), float(total)


@pytest.mark.parametrize(
    "encoding",
    [
        EvenStages(6, WIDTHS, 6),
        EvenStages(9, WIDTHS, 4),
        Steps(5, WIDTHS, True),
        Stages(9, WIDTHS, True, 4),
        Stages(8, WIDTHS, False, 5),
    ],
    ids=lambda e: f"{type(e).__name__}-{e.steps}-{e.units}-{e.skip}",
)
def test_plans_are_the_whole_front_of_error_and_cost_by_brute_force(encoding: Encoding) -> None:
    lowest = encoding.lowest
    grid = [np.array(i) + lowest for i in np.ndindex(*(encoding.highest - lowest + 1,) * encoding.units)]
    every = {encoding.pack(encoding.project(levels)): encoding.project(levels) for levels in grid}
    least, expected = np.inf, []
    for cost, error in sorted(error_of(levels, encoding) for levels in every.values()):
        if error < least - 1e-12:
            least = error
            expected.append((cost, error))
    plans = least_error_plans(encoding, COSTS, random_errors)
    assert np.allclose([error_of(plan, encoding) for plan in plans], expected, rtol=0, atol=1e-9)
    assert all(np.array_equal(encoding.project(plan), plan) for plan in plans)


def test_the_same_errors_give_the_same_plans() -> None:
    first, second = (least_error_plans(Steps(6, WIDTHS, True), COSTS, random_errors) for _ in range(2))
    assert [list(plan) for plan in first] == [list(plan) for plan in second]


def test_a_width_costs_a_share_at_least() -> None:
    plans = least_error_plans(Steps(3, WIDTHS, False), np.array([1e-6, 0.5, 1.0]), random_errors)
    assert SHARES * 1e-6 < 1
    assert list(plans[0]) == [0, 0, 0]


def test_only_steps_that_plans_can_take_are_measured() -> None:
    def times_of(steps: int) -> tuple[float, ...]:
        return tuple(float(100 * steps - i) for i in range(steps))

    assert steps_to_measure(Stages(3, WIDTHS, False, 3), times_of) == [(300, 299), (299, 298), (298, None)]
    free = steps_to_measure(Steps(3, WIDTHS, True), times_of)
    assert free == [(300, 299), (300, 298), (300, None), (299, 298), (299, None), (298, None)]
    even = steps_to_measure(EvenStages(3, WIDTHS, 3), times_of)
    assert even == [(100, None), (200, 199), (199, None), (300, 299), (299, 298), (298, None)]


def test_of_many_numbers_of_steps_only_some_are_measured_the_largest_among_them() -> None:
    asked: list[int] = []

    def times_of(steps: int) -> tuple[float, ...]:
        asked.append(steps)
        return tuple(float(1000 * steps - i) for i in range(steps))

    steps_to_measure(EvenStages(100, WIDTHS, 100), times_of)
    assert sum(asked) <= MOST_TIMES
    assert max(asked) == 100
    assert len(asked) > 1


def test_times_of_two_gaussians_are_as_good_as_the_golden_ones() -> None:
    """Distances of DDIM to 1,000 steps of it, on other noise: .1647 and .1326 where both start at the first time."""
    schedule = noise_schedule(DiffusionSettings())
    network = TwoGaussians(schedule)
    times = tuple(map(float, np.round(np.linspace(999, 0, 61))[:-1]))
    sampler = Sampler({1.0: network}, schedule, Noise(0, (2,)), torch.device("cpu"), dtype=torch.float64)
    encoding = Steps(60, (1.0,), True)
    table = step_errors(sampler, steps_to_measure(encoding, lambda steps: times), 256)
    plans = least_error_plans(encoding, np.array([1.0]), lambda steps: table.between(times))
    start = torch.from_numpy(np.random.RandomState(7).randn(4096, 2))

    def images(at: list[float]) -> torch.Tensor:
        x, steps = start, ddim(schedule, torch.tensor(at, dtype=torch.float64))
        for i, time in enumerate(at):
            clean = (x - steps.sigma[i] * network(x, torch.full((len(x),), time))) / steps.alpha[i]
            x = steps.states[i, i] * x + steps.clean[i, i] * clean
        return x

    teacher = images([float(time) for time in range(999, -1, -1)])
    taken = {int((plan != SKIP_LEVEL).sum()): np.flatnonzero(plan != SKIP_LEVEL) for plan in plans}
    distances = {
        count: float((images([times[i] for i in taken[count]]) - teacher).square().sum(1).mean().sqrt())
        for count in (5, 7, 10)
    }
    assert distances[10] == pytest.approx(0.1326, rel=0.03)
    assert distances[7] == pytest.approx(0.1647, rel=0.03)
    assert distances[5] < 0.2160  # it may start later, which the golden programme could not
