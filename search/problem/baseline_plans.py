"""List the plans of each baseline family: what a search has to beat at equal evaluations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, product
from typing import Any

import numpy as np
import torch

from stepfront.search.algorithm.encodings import Encoding, Levels
from stepfront.search.initial_plans.plan_kinds import PlanSource, least_gap_plans, monotone_levels, spread_by_cost
from stepfront.search.problem.problem import SearchProblem
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.diffusion.solvers import find_solver
from stepfront.trainers.sampler_learning.starts import SAMPLERS


def baseline_plans(method: str, count: int, problem: SearchProblem, source: PlanSource) -> list[Plan]:
    """Return at most `count` plans of a family, spread evenly over cost where the family is larger."""
    settings, learnt = problem.settings, problem.samplers
    if method == "fewer_steps":
        # Their cost is their number; the largest, with all steps, is always among them.
        steps = np.linspace(settings.sampler.steps, 1, min(count, settings.sampler.steps)).round()
        # Where samplers are learnt, only the numbers of steps that have one.
        return [problem.plan((1.0,) * n) for n in sorted(map(int, steps)) if not learnt or n in learnt]
    families: dict[str, Callable[[PlanSource, int], Sequence[Levels]]] = {
        "uniform": lambda s, n: [np.full(s.encoding.units, level) for level in range(s.encoding.highest + 1)],
        "one_cut": lambda s, n: list(cut_plans(s.encoding, 1)),
        "two_cut": lambda s, n: list(cut_plans(s.encoding, 2)),
        "monotone": lambda s, n: monotone_levels(n, s),
        "random": random_levels,
        "gap": lambda s, n: least_gap_plans(s.encoding, s.width_costs, s.gap()),
    }
    chosen = spread_by_cost(families[method](source, count), count, source)
    return [problem.plan_at(levels) for levels in chosen]


SAMPLER_STEPS = 7
"""Numbers of steps at which full-width samplers are tried, at most; evenly spread on a logarithmic scale."""


@dataclass(frozen=True)
class FullWidthSampler:
    """A plan at full width, and its solver and grid where they are not those of the settings."""

    plan: Plan
    name: str


def full_width_samplers(problem: SearchProblem) -> list[FullWidthSampler]:
    """Return full width with the best solvers and grids, and some numbers of steps up to the settings'.

    The settings' own solver and grid come first; a solver that adds noise is left out.  Of plans with equal
    coefficients only the first is returned.
    """
    own, schedule = problem.settings.sampler, noise_schedule(problem.card.diffusion)
    steps = sorted({int(n) for n in np.geomspace(min(3, own.steps), own.steps, SAMPLER_STEPS).round()})
    found: dict[tuple[Any, ...], FullWidthSampler] = {}
    learnt = [problem.plan((1.0,) * count) for count in problem.samplers]
    hand = [] if learnt else [(own.solver, own.grid)]
    for (solver, grid), count in product(dict.fromkeys([*hand, *SAMPLERS]), steps):
        times = time_grid(schedule, grid, count)
        coefficients = find_solver(solver)(schedule, torch.from_numpy(times.copy()))
        if coefficients.noise.any():
            continue  # a solver that adds noise
        name = "" if (solver, grid) == (own.solver, own.grid) else f"{solver}, {grid} grid"
        plan = Plan(tuple(map(float, times)), (1.0,) * count, solver, grid=grid)
        # Two solvers may be one and the same for few steps.
        same = (plan.times, str(coefficients.states.tolist()), str(coefficients.clean.tolist()))
        found.setdefault(same, FullWidthSampler(plan, name))
    return [*(FullWidthSampler(plan, "") for plan in learnt), *found.values()]


def cut_plans(encoding: Encoding, cuts: int) -> Iterator[Levels]:
    """Yield all plans with exactly `cuts` cut points between units.

    With more than 20 units the cut points are at 19 evenly spread positions.
    """
    units = encoding.units
    even = np.unique(np.linspace(1, max(1, units - 1), min(max(1, units - 1), 19)).round().astype(int))
    for positions in combinations([int(p) for p in even if p < units], cuts):
        bounds = np.array([*positions, units])
        run = np.searchsorted(bounds, np.arange(units), side="right")
        for levels in _neighbours_differ(encoding.highest + 1, cuts + 1):
            yield np.array(levels)[run]


def _neighbours_differ(choices: int, length: int) -> Iterator[tuple[int, ...]]:
    if length == 2:
        yield from permutations(range(choices), 2)
        return
    for head in _neighbours_differ(choices, length - 1):
        for level in range(choices):
            if level != head[-1]:
                yield (*head, level)


def random_levels(source: PlanSource, count: int) -> list[Levels]:
    """Return at most `count` different plans, each level drawn independently."""
    rng, e = np.random.default_rng([source.seed, 3]), source.encoding
    drawn = [tuple(map(int, rng.integers(0, e.highest + 1, e.units))) for _ in range(4 * count)]
    return [np.array(levels) for levels in list(dict.fromkeys(drawn))[:count]]
