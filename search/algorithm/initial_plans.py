"""The first generation, by name: how many plans of each kind in, proposals out.

uniform   the same width at every step            cuts      a spread of one- and two-cut plans, narrow at the noisy end
monotone  widths that never shrink toward the     snr       width from the step's log-SNR by a ramp of FLOPs, as in
          clean end, at random                              Step-Adaptive Training (arXiv 2312.13307)
gap       plans of least summed gap, at costs     front:S   the front of an earlier search S, mapped to this one's
          spread evenly                                     widths and steps
random    an independent level for each unit      fewer_steps  the full width at some steps, spread evenly, and the
                                                            others left out; none where steps can't be
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stepfront.errors import InputError
from stepfront.search.algorithm.encodings import SKIP_LEVEL, Encoding, EvenStages, Levels, Stages
from stepfront.search.algorithm.nsga2 import Proposal
from stepfront.search.algorithm.surrogate import LEAST_TRIALS, Opinion, PlanFeatures, opinion_of
from stepfront.search.pareto import domination_rank
from stepfront.search.records.tables import FRONT, TRIALS, read_table

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PlanSource:
    """What seeds are made from: the encoding, the cost of each width (any unit), log-SNR and gap at each step.

    `gap` [steps, widths] is only asked for where `gap` seeds are wanted.  Seeds that are not `affordable` are left out,
    the full width excepted, which all others are held against.  `earlier` says where the tables of `front:SEARCH` are
    kept, where not in SEARCH itself.
    """

    encoding: Encoding
    width_costs: Array
    half_log_snr: Array
    gap: Callable[[], Array]
    seed: int = 0
    affordable: Callable[[Levels], bool] = lambda levels: True
    earlier: Mapping[str, Path] = field(default_factory=dict)


def make_initial_plans(wanted: Mapping[str, int], source: PlanSource) -> list[Proposal]:
    """The proposals of all kinds, uniform plans first, without repeats; a kind may give fewer than wanted."""
    proposals: dict[str, Proposal] = {}
    for name in sorted(wanted, key=lambda name: (name != "uniform", list(wanted).index(name))):
        if not wanted[name]:
            continue
        fresh = 0
        for levels in _levels_of(name, wanted[name], source):
            levels = source.encoding.project(levels)
            genome = source.encoding.pack(levels)
            kept = (levels == source.encoding.highest).all() or source.affordable(levels)
            if genome not in proposals and fresh < wanted[name] and kept:
                proposals[genome] = Proposal(genome, name)
                fresh += 1
    return list(proposals.values())


def _levels_of(name: str, count: int, source: PlanSource) -> Sequence[Levels]:
    if name.startswith("front:"):
        return front_levels(source.earlier.get(name, Path(name.removeprefix("front:"))), count, source.encoding)
    return INITIAL_PLANS[name](count, source)


def uniform_levels(count: int, source: PlanSource) -> list[Levels]:
    """The widest, the narrowest, then those between."""
    highest = source.encoding.highest
    order = sorted(range(highest + 1), key=lambda level: (level != highest, level != 0))
    return [np.full(source.encoding.units, level) for level in order[:count]]


def random_levels(count: int, source: PlanSource) -> list[Levels]:
    """More than enough independent ones, since some may repeat."""
    rng, e = np.random.default_rng([source.seed, 1]), source.encoding
    return [e.draw(rng) for _ in range(4 * count)]


def monotone_levels(count: int, source: PlanSource) -> list[Levels]:
    """Sorted random levels, spread evenly over the costs that they reach."""
    rng, e = np.random.default_rng([source.seed, 2]), source.encoding
    # Random borders between the levels make every shape as likely; sorted independent levels would crowd the middle.
    drawn = [np.sort(rng.integers(0, e.units + 1, e.highest)) for _ in range(50 * count)]
    plans = [np.searchsorted(borders, np.arange(e.units), side="right") for borders in drawn]
    return spread_by_cost(plans, count, source)


def cut_levels(count: int, source: PlanSource) -> list[Levels]:
    """Rising one- and two-cut plans, spread evenly over cost."""
    e = source.encoding
    positions = np.unique(np.linspace(1, max(1, e.units - 1), min(max(1, e.units - 1), 12)).round().astype(int))
    plans: list[Levels] = []
    for a in range(e.highest + 1):
        for b in range(a + 1, e.highest + 1):
            for p in positions:
                plans.append(np.where(np.arange(e.units) < p, a, b))
                for c in range(b + 1, e.highest + 1):
                    plans += [
                        np.select([np.arange(e.units) < p, np.arange(e.units) < q], [a, b], c)
                        for q in positions
                        if q > p
                    ]
    return spread_by_cost(plans, count, source)


def snr_levels(count: int, source: PlanSource) -> list[Levels]:
    """FLOPs that rise with the step's log-SNR, F(u) = F (k + (1 - k) u) with u in [0, 1], for a range of k and shifts.

    The ramp of Step-Adaptive Training; the width nearest in cost is taken at each unit.
    """
    e = source.encoding
    ends = np.cumsum(e.lengths)
    snr = np.array([source.half_log_snr[end - n : end].mean() for end, n in zip(ends, e.lengths, strict=True)])
    u = (snr - snr.min()) / max(np.ptp(snr), 1e-12)
    relative = source.width_costs / source.width_costs[-1]
    plans = []
    for k in np.linspace(relative[0], 1, 8):
        for shift in np.linspace(-0.5, 0.5, 9):
            target = k + (1 - k) * np.clip(u + shift, 0, 1)
            plans.append(np.abs(target[:, None] - relative[None]).argmin(axis=1))
    return spread_by_cost(plans, count, source)


def gap_levels(count: int, source: PlanSource) -> list[Levels]:
    """Plans of least summed gap among those as cheap, spread evenly over cost."""
    return spread_by_cost(least_gap_plans(source.encoding, source.width_costs, source.gap()), count, source)


def fewer_steps_levels(count: int, source: PlanSource) -> list[Levels]:
    """The widest at 1 to all but one of the units, spread evenly from the first on, and the others left out.

    None where steps can't be left out, nor of cuts, which can't leave out every second one.
    """
    e = source.encoding
    plans: list[Levels] = []
    for taken in range(1, e.units if e.skip and isinstance(e, Stages) else 1):
        levels = np.full(e.units, SKIP_LEVEL)
        levels[np.arange(taken) * e.units // taken] = e.highest
        plans.append(levels)
    return spread_by_cost(plans, count, source)


def front_levels(directory: Path, count: int, encoding: Encoding) -> list[Levels]:
    """The front of the search in `directory`, with widths and steps mapped to the nearest of this encoding."""
    front = read_table(directory / FRONT, "front")
    if not len(front):
        raise InputError(f"the search in {directory} has no front to start from")
    front = _alike(front, encoding)
    chosen = np.unique(np.linspace(0, len(front) - 1, min(count, len(front))).round().astype(int))
    plans = []
    for i in chosen:
        plans.append(mapped_levels(front["widths"].iloc[i], encoding))
    return plans


def _alike(plans: pd.DataFrame, encoding: Encoding) -> pd.DataFrame:
    """Those of another search's plans that differ in ways that the encoding can tell apart: unless it has any number of
    steps, the ones of most steps."""
    lengths = plans["widths"].map(len)
    return plans if isinstance(encoding, EvenStages) else plans[lengths == lengths.max()]


def mapped_levels(widths: Sequence[float], encoding: Encoding) -> Levels:
    """The plan of another search, with its width at each step, as the nearest one of this encoding."""
    theirs = np.asarray(widths, dtype=np.float64)
    if isinstance(encoding, EvenStages):
        return encoding.levels_of(tuple(theirs))  # with about as many steps
    # A step of ours takes the width of theirs at the same share of the way from noise to image.
    at = ((np.arange(encoding.steps) + 0.5) / encoding.steps * len(theirs)).astype(int)
    return encoding.levels_of(tuple(theirs[at]))


def earlier_opinions(
    wanted: Mapping[str, int], encoding: Encoding, gap: Array, kept: Mapping[str, Path] | None = None
) -> tuple[Opinion, ...]:
    """What the searches whose fronts are among the seeds learnt from all their trials, one opinion a search."""
    opinions = []
    for name in wanted:
        if name.startswith("front:") and wanted[name]:
            place = (kept or {}).get(name, Path(name.removeprefix("front:")))
            trials = read_table(place / TRIALS, "trials")
            trials = _alike(trials[trials["state"] == "complete"], encoding)
            if len(trials) < LEAST_TRIALS:
                continue
            scores = trials[["fid", "gflops"]].to_numpy(dtype=np.float64)
            plans = [mapped_levels(widths, encoding) for widths in trials["widths"]]
            ranks = partial(domination_rank, scores, None)
            opinions.append(opinion_of(PlanFeatures(encoding, gap), plans, scores[:, 0], ranks))
    return tuple(opinions)


def least_gap_plans(encoding: Encoding, width_costs: Array, gap: Array, most_states: int = 50_000) -> list[Levels]:
    """Every plan (one of equals) that no other beats in both summed gap and cost; exact.

    Gap [steps, widths] and cost add up over units, so partial plans that are beaten in both can be dropped (dynamic
    programming over units).  Where more than `most_states` partial plans remain, as with hundreds of units, the plans
    on the lower convex hull are given instead: each is exact for its own cost (Lagrangian).
    """
    unit_gap = np.add.reduceat(gap, np.cumsum(encoding.lengths) - encoding.lengths, axis=0)
    unit_cost = encoding.lengths[:, None] * np.round(width_costs / width_costs.min() * 1e6)[None]
    costs, gaps, kept = np.zeros(1), np.zeros(1), []
    for cost, loss in zip(unit_cost, unit_gap, strict=True):
        all_costs = (costs[:, None] + cost[None]).ravel()
        all_gaps = (gaps[:, None] + loss[None]).ravel()
        order = np.lexsort((all_gaps, all_costs))
        best_before = np.concatenate([[np.inf], np.minimum.accumulate(all_gaps[order])[:-1]])
        order = order[all_gaps[order] < best_before]
        if len(order) > most_states:
            return _hull_plans(unit_cost, unit_gap)
        costs, gaps = all_costs[order], all_gaps[order]
        kept.append(order)
    plans = np.zeros((len(costs), encoding.units), dtype=np.int64)
    rows = np.arange(len(costs))
    for unit in range(encoding.units - 1, -1, -1):
        chosen = kept[unit][rows]
        plans[:, unit], rows = chosen % len(width_costs), chosen // len(width_costs)
    return list(plans)


def _hull_plans(unit_cost: Array, unit_gap: Array) -> list[Levels]:
    relative = unit_cost / unit_cost.max()
    scale = np.abs(unit_gap).max() / relative.min()
    prices = np.concatenate([[0.0], np.geomspace(1e-9, 10, 400) * scale])
    plans = {tuple((unit_gap + price * relative).argmin(axis=1)): None for price in prices}
    return [np.array(plan) for plan in plans]


def spread_by_cost(plans: Sequence[Levels], count: int, source: PlanSource) -> list[Levels]:
    """`count` of the affordable plans, those nearest to costs spaced evenly between the cheapest and the dearest."""
    plans = [plan for plan in plans if source.affordable(source.encoding.project(plan))]
    if len(plans) <= count:
        return list(plans)
    each = np.array([*source.width_costs, 0.0])  # level -1, a step that is left out, is the last entry
    costs = np.array([(source.encoding.lengths * each[plan]).sum() for plan in plans])
    free = np.ones(len(plans), dtype=bool)
    chosen = []
    for target in np.linspace(costs.min(), costs.max(), count + 2)[1:-1]:
        i = int(np.where(free, np.abs(costs - target), np.inf).argmin())
        free &= ~np.array([np.array_equal(plan, plans[i]) for plan in plans])
        chosen.append(i)
        if not free.any():
            break
    return [plans[i] for i in chosen]


INITIAL_PLANS: dict[str, Callable[[int, PlanSource], Sequence[Levels]]] = {
    "uniform": uniform_levels,
    "cuts": cut_levels,
    "monotone": monotone_levels,
    "snr": snr_levels,
    "gap": gap_levels,
    "fewer_steps": fewer_steps_levels,
    "random": random_levels,
}
"""Makers of seeds by name; `front:SEARCH` beside them."""
