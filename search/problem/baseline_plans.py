"""List the plans of each baseline family: what a search has to beat at equal evaluations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, product
from typing import Any

import numpy as np
import torch

from stepfront.search.genomes.encodings import Encoding, Levels
from stepfront.search.initial_plans.plan_kinds import PlanSource, least_gap_plans, monotone_levels, spread_by_cost
from stepfront.search.problem.problem import SearchProblem
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.diffusion.solvers import find_solver
from stepfront.trainers.sampler_learning.starts import SAMPLERS
from stepfront.trainers.variant import Variant


def baseline_plans(method: str, count: int, problem: SearchProblem, source: PlanSource) -> list[Plan]:
    """Return at most `count` plans of a family, spread evenly over cost where the family is larger."""
    settings, learnt = problem.settings, problem.samplers
    if method == DEEP_CACHE:
        return deep_cache_plans(problem)[:count]
    if method == INTERVAL:
        return interval_plans(problem, count)
    if method == "fewer_steps":
        # Where samplers are learnt, only the numbers of steps that have one.
        possible = sorted(learnt) or range(1, settings.sampler.steps + 1)
        return [problem.plan((1.0,) * n) for n in spread_evenly(possible, count)]
    families: dict[str, Callable[[PlanSource, int], Sequence[Levels]]] = {
        "uniform": lambda s, n: [np.full(s.encoding.units, level) for level in range(s.encoding.highest + 1)],
        "one_cut": lambda s, n: list(cut_plans(s.encoding, 1)),
        "two_cut": lambda s, n: list(cut_plans(s.encoding, 2)),
        "monotone": lambda s, n: monotone_levels(n, s),
        "random": random_levels,
        "gap": lambda s, n: least_gap_plans(s.encoding, s.width_costs, s.gap()),
    }
    chosen = spread_by_cost(families[method](source, count), count, source)
    return [problem.plan(source.encoding.step_variants(levels)) for levels in chosen]


def spread_evenly(possible: Sequence[int], count: int) -> list[int]:
    """Return at most `count` of the values, evenly spread in their order; the last is always among them."""
    places = np.linspace(len(possible), 1, min(count, len(possible))).round().astype(int)
    return [possible[place - 1] for place in reversed(places)]


DEEP_CACHE, INTERVAL = "deepcache", "guidance_interval"
"""Methods that only some spaces have: those with variants that reuse features, and unguided ones."""

EVERY = (2, 3, 5)
"""How often a plan of DeepCache runs all levels: every 2nd, 3rd, 5th step."""


def variant_methods(problem: SearchProblem) -> tuple[str, ...]:
    """Return the methods that the space has by its variants."""
    return methods_by_variants(problem.variants)


def methods_by_variants(variants: Sequence[Variant]) -> tuple[str, ...]:
    """Return the methods that a space with these variants has beside those of every space."""
    reuses, switches = any(v.reuse and v.guided for v in variants), Variant(1.0, guided=False) in variants
    return (*((DEEP_CACHE,) if reuses else ()), *((INTERVAL,) if switches else ()))


def deep_cache_plans(problem: SearchProblem) -> list[Plan]:
    """Return plans of one width that run all levels at every 2nd, 3rd and 5th step, and reuse features between.

    Uniform intervals, as in arXiv 2312.00858; the widest first.
    """
    steps = range(problem.settings.sampler.steps)
    reusing = [variant for variant in reversed(problem.variants) if variant.reuse and variant.guided]
    return [problem.plan([v if step % every else v.full for step in steps]) for v in reusing for every in EVERY]


def interval_plans(problem: SearchProblem, count: int) -> list[Plan]:
    """Return at most `count` plans of full width that are guided in one interval of steps (arXiv 2404.07724).

    Intervals have ends at up to 13 evenly spread steps, and are spread evenly over length, which is cost.  The first is
    empty: never guided.
    """
    steps = problem.settings.sampler.steps
    ends = np.unique(np.linspace(0, steps, 13).round().astype(int)).tolist()
    inner = [(a, b) for a, b in combinations(ends, 2) if b - a < steps]  # guided everywhere is full width itself
    intervals = sorted([(0, 0), *inner], key=lambda interval: (interval[1] - interval[0], interval))
    chosen = np.unique(np.linspace(0, len(intervals) - 1, min(count, len(intervals))).round().astype(int))
    guided, unguided = Variant(1.0), Variant(1.0, guided=False)
    pairs = [intervals[i] for i in chosen]
    return [problem.plan([guided if a <= step < b else unguided for step in range(steps)]) for a, b in pairs]


SAMPLER_STEPS = 7
"""Numbers of steps up to the settings' at which full-width samplers are tried, at most; evenly spread on a logarithmic
scale."""

MANY_STEPS = 10
"""Least steps of a search whose plans are compared with full width at more steps than its own."""

MOST_STEPS = 20
"""Steps at full width up to which these are compared."""


@dataclass(frozen=True)
class FullWidthSampler:
    """A plan at full width, and its solver and grid where it does not run on the search's own sampler."""

    plan: Plan
    name: str


def full_width_samplers(problem: SearchProblem) -> list[FullWidthSampler]:
    """Return full width with the best solvers and grids, and some numbers of steps up to 20 or the settings'.

    A search whose plans take ten steps or more is so compared with full width at more steps than its own, too.
    The search's own sampler comes first; a solver that adds noise is left out.  Of plans with equal coefficients only
    the first is returned.  Where samplers are learnt, these are the search's own, and the settings' solver and grid are
    named as any others: a name and runs stand for one plan.
    """
    own, schedule = problem.settings.sampler, noise_schedule(problem.card.diffusion)
    more = [n for n in _spread(MOST_STEPS) if n > own.steps] if own.steps >= MANY_STEPS else []
    steps = [*_spread(own.steps), *more]
    found: dict[tuple[Any, ...], FullWidthSampler] = {}
    learnt = [problem.plan((1.0,) * count) for count in problem.samplers]
    hand = [] if learnt else [(own.solver, own.grid)]
    for (solver, grid), count in product(dict.fromkeys([*hand, *SAMPLERS]), steps):
        times = time_grid(schedule, grid, count)
        coefficients = find_solver(solver)(schedule, torch.from_numpy(times.copy()))
        if coefficients.noise.any():
            continue  # a solver that adds noise
        name = "" if not learnt and (solver, grid) == (own.solver, own.grid) else f"{solver}, {grid} grid"
        plan = Plan(tuple(map(float, times)), (1.0,) * count, solver, grid=grid)
        # Two solvers may be one and the same for few steps.
        same = (plan.times, str(coefficients.states.tolist()), str(coefficients.clean.tolist()))
        found.setdefault(same, FullWidthSampler(plan, name))
    return [*(FullWidthSampler(plan, "") for plan in learnt), *found.values()]


def _spread(most: int) -> list[int]:
    """Return numbers of steps from 3 to `most`, ascending."""
    return sorted({int(n) for n in np.geomspace(min(3, most), most, SAMPLER_STEPS).round()})


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
