"""Check the errors of single steps against the steps themselves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import noise_schedule
from stepfront.trainers.step_losses.step_errors import SEED, step_errors

SCHEDULE = noise_schedule(DiffusionSettings())
TIMES = (999.0, 500.0, 40.5)


@pytest.fixture(scope="module")
def sampler(two_gaussians: Callable[..., torch.nn.Module]) -> Sampler:
    exact = two_gaussians(SCHEDULE)

    def narrow(x: Tensor, t: Tensor) -> Tensor:
        return 0.9 * exact(x, t)

    return Sampler({1.0: exact, 0.5: narrow}, SCHEDULE, Noise(3, (2,)), torch.device("cpu"), dtype=torch.float64)


def test_an_error_is_the_distance_of_one_step_from_a_fine_trajectory(sampler: Sampler) -> None:
    table = step_errors(sampler, [(999.0, 500.0), (500.0, 40.5), (40.5, None)], 16)
    noise = Noise(SEED, (2,)).on(torch.device("cpu"), torch.float64, range(16))
    teacher = Sampler({1.0: sampler.denoisers[1.0]}, SCHEDULE, Noise(SEED, (2,)), sampler.device, torch.float64)
    every = tuple(float(time) for time in sorted({*np.arange(0.0, 1000.0), 40.5}, reverse=True))
    run, state = teacher.prepare(Plan(every, (1.0,) * len(every))), teacher.start(range(16))
    states = {}
    for position, time in enumerate(every):
        states[time] = state.x
        state = teacher.step(state, run, position, range(16))
    for column, width in enumerate((0.5, 1.0)):
        for row, (begin, end) in enumerate(zip(TIMES, (*TIMES[1:], None), strict=True)):
            x, target = states[begin], state.x if end is None else states[end]
            times = np.array([begin])
            alpha, sigma = float(SCHEDULE.alpha(times)[0]), float(SCHEDULE.sigma(times)[0])
            eps = sampler.denoisers[width](x, torch.full((16,), begin))
            clean = (x - sigma * eps) / alpha
            later = np.array([end or 0.0])
            a, s = (1.0, 0.0) if end is None else (float(SCHEDULE.alpha(later)[0]), float(SCHEDULE.sigma(later)[0]))
            expected = float((a * clean + s * eps - target).norm(dim=1).mean())
            # The teacher has 64 steps here, not a thousand.
            assert table.errors[row, row + 1, column] == pytest.approx(expected, abs=0.1)
    assert table.start[0] == 0  # the trajectory begins there
    assert table.start[1] == pytest.approx(float((noise - states[500.0]).norm(dim=1).mean()), abs=0.05)
    assert np.isnan(table.errors[0, 2]).all()  # not asked for


def test_a_narrow_width_errs_more_and_a_shorter_step_less(sampler: Sampler) -> None:
    errors = step_errors(sampler, [(500.0, 40.5), (500.0, 400.0), (400.0, None), (40.5, None)], 32)
    _, steps = errors.between([500.0, 400.0, 40.5])
    assert steps[0, 1, 1] < steps[0, 2, 1]
    assert steps[0, 1, 1] < steps[0, 1, 0]


def test_it_is_the_same_each_time_and_does_not_depend_on_the_samplers_noise(sampler: Sampler) -> None:
    other = Sampler(sampler.denoisers, SCHEDULE, Noise(9, (2,)), sampler.device, torch.float64)
    first, second = (step_errors(one, [(500.0, None)], 8) for one in (sampler, other))
    assert np.array_equal(first.errors, second.errors, equal_nan=True)
    assert np.array_equal(first.start, second.start)


def test_times_that_were_not_measured_are_refused(sampler: Sampler) -> None:
    with pytest.raises(InputError, match="no step was measured at time 77; the table is of another sampler"):
        step_errors(sampler, [(500.0, None)], 2).between([500.0, 77.0])
