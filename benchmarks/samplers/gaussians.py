"""Learn samplers of two Gaussians, whose noise is known in closed form, and compare them with hand grids."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.markdown import markdown
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import NoiseSchedule, noise_schedule, time_grid
from stepfront.trainers.diffusion.solvers import find_solver
from stepfront.trainers.learning_settings import LearningSettings, Learnt
from stepfront.trainers.sampler_learning.distances import squared_error
from stepfront.trainers.sampler_learning.learn import learn_sampler
from stepfront.trainers.sampler_learning.pairs import Pairs, PairSets
from stepfront.trainers.sampler_learning.starts import GRIDS, mean_distance
from stepfront.trainers.sampler_learning.trajectory import student_of

STEPS = 5
CASES: tuple[tuple[str, Learnt, float], ...] = (
    # solver, what is learnt, and the most that its error may be of the trailing grid's
    ("ddim", "times", 0.70),
    ("dpmpp_2m", "times", 0.45),
    ("ddim", "network_times", 0.42),
    ("ddim", "solver", 0.10),
)
TEXT = f"""\
Two Gaussians in the plane, weights 0.3 and 0.7, variance 0.04, in float64; the teacher is DDIM of 1,000 steps. Errors
at {STEPS} steps are root mean squared distances to the teacher's points on 512 held-out ones. `share` is the learnt
error as a share of the trailing grid's, and `bound` what the tests allow."""


class TwoGaussians:
    """The denoiser of the mixture."""

    means = torch.tensor([[1.0, -0.5], [-0.75, 0.25]], dtype=torch.float64)
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    variance = 0.04

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.schedule = schedule

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Return eps = -sigma grad log p_t(x), p_t the mixture convolved with the noise."""
        alpha = self.schedule.alpha(t.double())[:, None]
        sigma = self.schedule.sigma(t.double())[:, None]
        variance = alpha**2 * self.variance + sigma**2
        away = x[:, None] - alpha[:, None] * self.means
        share = (self.weights.log() - away.square().sum(2) / (2 * variance)).softmax(1)
        return sigma * (share[:, :, None] * away).sum(1) / variance


def gaussians() -> str:
    """Return the errors of learnt samplers beside those of hand grids."""
    schedule = noise_schedule(DiffusionSettings())
    sampler = Sampler({1.0: TwoGaussians(schedule)}, schedule, Noise(0, (2,)), torch.device("cpu"), torch.float64)
    sets = PairSets(*(_pairs(sampler, seed, count) for seed, count in ((1, 256), (2, 128), (7, 512))))
    rows = []
    for solver, learnt, bound in CASES:
        hand = {grid: _error(sampler, sets.held_out, solver, grid) for grid in GRIDS}
        best = min(hand, key=lambda grid: hand[grid])
        result = learn_sampler(sampler, (1.0,) * STEPS, learnt, _settings(solver, learnt), pairs=sets)
        found = (2 * result.held_out) ** 0.5  # two values per point
        errors = {"trailing": hand["trailing"], "best hand grid": hand[best], "learnt error": found}
        row = {"solver": solver, "learnt": learnt} | {name: f"{error:.4f}" for name, error in errors.items()}
        rows.append(row | {"share": f"{found / hand['trailing']:.3f}", "bound": f"{bound:.2f}", "hand grid": best})
    return f"{TEXT}\n\n{markdown(pd.DataFrame(rows))}"


def _settings(solver: str, learnt: Learnt) -> LearningSettings:
    return LearningSettings(
        pairs=256,
        batch=64,
        iterations=240 if learnt == "solver" else 120,
        patience=1000,
        check_every=20,
        starts=3,
        least_gap=0.0,
        distance="squared",
        solvers=(solver,),
        teacher_steps=1000,
        learn_start=False,
        rate_times=0.05,
        rate_network_times=3.0,
        rate_coefficients=0.005,
    )


@torch.no_grad()
def _pairs(sampler: Sampler, seed: int, count: int) -> Pairs:
    noise = torch.from_numpy(np.random.RandomState(seed).randn(count, 2))
    times = tuple(map(float, time_grid(sampler.schedule, "leading", 1000)))
    teacher = sampler.prepare(Plan(times, (1.0,) * 1000, "ddim"))
    state = type(sampler.start(range(1)))(noise)
    for position in range(1000):
        state = sampler.step(state, teacher, position, range(count))
    return Pairs(noise, state.x.clone())


def _error(sampler: Sampler, pairs: Pairs, solver: str, grid: str) -> float:
    times = torch.from_numpy(time_grid(sampler.schedule, grid, STEPS).copy())
    form = find_solver(solver)(sampler.schedule, times), times
    distance = mean_distance(student_of(sampler, (1.0,) * STEPS), form, pairs, squared_error)
    return float((2 * distance.mean()).sqrt())
