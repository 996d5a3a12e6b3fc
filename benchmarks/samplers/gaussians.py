"""Learn samplers of two Gaussians, whose noise is known in closed form, and compare them with hand grids."""

from __future__ import annotations

import pandas as pd
import torch

from benchmarks.markdown import markdown
from stepfront.testing.gaussians import two_gaussians_pairs, two_gaussians_sampler
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.diffusion.solvers import find_solver
from stepfront.trainers.learning_settings import LearningSettings, Learnt
from stepfront.trainers.sampler_learning.distances import squared_error
from stepfront.trainers.sampler_learning.learn import learn_sampler
from stepfront.trainers.sampler_learning.pairs import Pairs, PairSets
from stepfront.trainers.sampler_learning.starts import GRIDS, mean_distance
from stepfront.trainers.sampler_learning.trajectory import student_of

STEPS = 5
CASES: tuple[tuple[str, Learnt, float, float], ...] = (
    # solver, what is learnt, and the most that its error may be of the trailing grid's, and of the best hand grid's
    ("ddim", "times", 0.70, 0.90),
    ("dpmpp_2m", "times", 0.45, 0.88),
    ("ddim", "network_times", 0.42, 0.50),
    ("ddim", "solver", 0.10, 0.13),
)
TEXT = f"""\
Two Gaussians in the plane, weights 0.3 and 0.7, variance 0.04, in float64; the teacher is DDIM of 1,000 steps. Errors
at {STEPS} steps are root mean squared distances to the teacher's points on 512 held-out ones. `share` is the learnt
error as a share of the trailing grid's, `of the best hand grid` as one of that grid's, and each `bound` what the tests
allow."""


def gaussians() -> str:
    """Return the errors of learnt samplers beside those of hand grids."""
    schedule = noise_schedule(DiffusionSettings())
    sampler = two_gaussians_sampler(schedule)
    sets = PairSets(*(two_gaussians_pairs(schedule, seed, count) for seed, count in ((1, 256), (2, 128), (7, 512))))
    rows = []
    for solver, learnt, bound, bound_of_best in CASES:
        hand = {grid: _error(sampler, sets.held_out, solver, grid) for grid in GRIDS}
        best = min(hand, key=lambda grid: hand[grid])
        result = learn_sampler(sampler, (1.0,) * STEPS, learnt, _settings(solver, learnt), pairs=sets)
        found = (2 * result.held_out) ** 0.5  # two values per point
        errors = {"trailing": hand["trailing"], "best hand grid": hand[best], "learnt error": found}
        row = {"solver": solver, "learnt": learnt} | {name: f"{error:.4f}" for name, error in errors.items()}
        row |= {"share": f"{found / hand['trailing']:.3f}", "bound": f"{bound:.2f}"}
        row |= {"of the best hand grid": f"{found / hand[best]:.3f}", "its bound": f"{bound_of_best:.2f}"}
        rows.append(row | {"hand grid": best})
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


def _error(sampler: Sampler, pairs: Pairs, solver: str, grid: str) -> float:
    times = torch.from_numpy(time_grid(sampler.schedule, grid, STEPS).copy())
    form = find_solver(solver)(sampler.schedule, times), times
    distance = mean_distance(student_of(sampler, (1.0,) * STEPS), form, pairs, squared_error)
    return float((2 * distance.mean()).sqrt())
