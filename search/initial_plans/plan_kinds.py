"""Make the first generation: from the number of plans wanted of each kind to proposals.

uniform      the same width at every step
cuts         one- and two-cut plans, narrow at the noisy end, spread over cost
monotone     random widths that never decrease toward the clean end
snr          FLOPs that rise with the step's log-SNR, as in Step-Adaptive Training (arXiv 2312.13307)
gap          plans of least summed gap, spread over cost
dp           plans of least summed error of steps, spread over cost (least_error.py)
fewer_steps  the full width at some steps, spread evenly, and the others skipped; only where steps may be skipped
random       an independent level for each unit
front:S      the Pareto front of an earlier search S (search/earlier)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stepfront.arrays import Array
from stepfront.search.algorithm.trials import Proposal
from stepfront.search.earlier.earlier_models import front_levels
from stepfront.search.earlier.mapped_plans import LogSnrOf
from stepfront.search.earlier.usable_plans import earlier_directory
from stepfront.search.genomes.encodings import SKIP_LEVEL, Encoding, Levels, Stages
from stepfront.search.genomes.sampler_genes import SamplerGenes
from stepfront.search.initial_plans.least_error import ErrorsOf, least_error_plans, not_measured
from stepfront.search.records.settings_paths import FRONT_OF


@dataclass(frozen=True)
class PlanSource:
    """What initial plans are made from.

    `width_costs` [widths] is in any unit, `half_log_snr` [steps].  `gap` returns the gap table [steps, widths], and
    `errors_of` the errors of a sampler's steps; both are called only for kinds that need them.  Plans that are not
    `affordable` are dropped, except the full width, which all others are compared with.  `earlier` maps `front:SEARCH`
    to the directory of its tables, if that is not SEARCH.  `half_log_snr_of` returns that of a sampler's steps; without
    it, plans of earlier searches are mapped by their step numbers.
    """

    encoding: Encoding
    width_costs: Array
    half_log_snr: Array
    gap: Callable[[], Array]
    seed: int = 0
    errors_of: ErrorsOf = not_measured
    affordable: Callable[[Levels], bool] = lambda levels: True
    earlier: Mapping[str, Path] = field(default_factory=dict)
    half_log_snr_of: LogSnrOf | None = None


def make_initial_plans(wanted: Mapping[str, int], source: PlanSource) -> list[Proposal]:
    """Return the proposals of all kinds, uniform plans first, without repeats; a kind may yield fewer than wanted."""
    proposals: dict[str, Proposal] = {}
    for name in sorted(wanted, key=lambda name: (name != "uniform", list(wanted).index(name))):
        if not wanted[name]:
            continue
        added = 0
        for levels in _levels_of(name, wanted[name], source):
            levels = source.encoding.project(_on_a_sampler(levels, name, len(proposals), source.encoding))
            genome = source.encoding.pack(levels)
            widest = (levels[: source.encoding.units] == source.encoding.highest).all()
            allowed = widest or source.affordable(levels)
            if genome not in proposals and added < wanted[name] and allowed:
                proposals[genome] = Proposal(genome, name)
                added += 1
    return list(proposals.values())


def _on_a_sampler(levels: Levels, kind: str, number: int, encoding: Encoding) -> Levels:
    """Return levels with genes of the sampler where the encoding has them.

    Uniform plans run on the search's own sampler, and other kinds on each pair of solver and grid in turn.
    """
    if kind == "uniform" or not isinstance(encoding, SamplerGenes) or len(levels) > encoding.units:
        return levels
    return encoding.on_combination(levels, number)


def _levels_of(name: str, count: int, source: PlanSource) -> Sequence[Levels]:
    if name.startswith(FRONT_OF):
        directory = earlier_directory(name, source.earlier)
        return front_levels(directory, count, source.encoding, source.half_log_snr_of)
    return INITIAL_PLANS[name](count, source)


def uniform_levels(count: int, source: PlanSource) -> list[Levels]:
    """Return uniform plans: the widest, the narrowest, then those between."""
    highest = source.encoding.highest
    order = sorted(range(highest + 1), key=lambda level: (level != highest, level != 0))
    return [np.full(source.encoding.units, level) for level in order[:count]]


def random_levels(count: int, source: PlanSource) -> list[Levels]:
    """Return independent plans, more than `count` since some may repeat."""
    rng, e = np.random.default_rng([source.seed, 1]), source.encoding
    return [e.draw(rng) for _ in range(4 * count)]


def monotone_levels(count: int, source: PlanSource) -> list[Levels]:
    """Return random plans of ascending levels, spread evenly over cost."""
    rng, e = np.random.default_rng([source.seed, 2]), source.encoding
    # Random borders between the levels make every shape as likely; sorted independent levels would crowd the middle.
    drawn = [np.sort(rng.integers(0, e.units + 1, e.highest)) for _ in range(50 * count)]
    plans = [np.searchsorted(borders, np.arange(e.units), side="right") for borders in drawn]
    return spread_by_cost(plans, count, source)


def cut_levels(count: int, source: PlanSource) -> list[Levels]:
    """Return plans of two or three ascending levels, one or two cuts, spread evenly over cost."""
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
    """Return plans whose FLOPs rise with the step's log-SNR, spread evenly over cost.

    F(u) = F (k + (1 - k) u), with u in [0, 1] the scaled log-SNR, for a range of k and shifts of u: the ramp of
    Step-Adaptive Training.  Each unit takes the width nearest in cost.
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
    """Return the Pareto front of summed gap and cost, of widths without marks, spread evenly over cost."""
    plain = source.encoding.plain_levels  # unguided steps would dominate: the loss does not see guidance
    found = least_gap_plans(source.encoding, source.width_costs[plain], source.gap()[:, plain])
    return spread_by_cost([plain[levels] for levels in found], count, source)


def dp_levels(count: int, source: PlanSource) -> list[Levels]:
    """Return the Pareto front of summed error of steps and cost, of widths without marks, spread evenly over cost."""
    plain = source.encoding.plain_levels  # reuse depends on the step before, which the programme does not know
    found = least_error_plans(source.encoding.of_widths, source.width_costs[plain], source.errors_of)
    return spread_by_cost([np.array([*plain, SKIP_LEVEL])[levels] for levels in found], count, source)


def fewer_steps_levels(count: int, source: PlanSource) -> list[Levels]:
    """Return plans that run 1 to all but one of the units at full width, evenly spread, and skip the others.

    None where steps can't be skipped, and none of cuts, which can't skip every second step.
    """
    e = source.encoding
    plans: list[Levels] = []
    for taken in range(1, e.units if e.skip and isinstance(e.of_widths, Stages) else 1):
        levels = np.full(e.units, SKIP_LEVEL)
        levels[np.arange(taken) * e.units // taken] = e.highest
        plans.append(levels)
    return spread_by_cost(plans, count, source)


def least_gap_plans(encoding: Encoding, width_costs: Array, gap: Array, most_states: int = 50_000) -> list[Levels]:
    """Return every plan (one of equals) that no other plan dominates in summed gap and cost; exact.

    Gap [steps, widths] and cost add up over units, so dominated partial plans can be dropped (dynamic programming over
    units).  With hundreds of units more than `most_states` partial plans may remain.  The plans on the lower convex
    hull are returned then; each is exact for its own cost (Lagrangian).
    """
    unit_gap = np.add.reduceat(gap, np.cumsum(encoding.lengths) - encoding.lengths, axis=0)
    unit_cost = encoding.lengths[:, None] * np.round(width_costs / width_costs.min() * 1e6)[None]
    costs, gaps, survivors = np.zeros(1), np.zeros(1), []
    for cost, loss in zip(unit_cost, unit_gap, strict=True):
        all_costs = (costs[:, None] + cost[None]).ravel()
        all_gaps = (gaps[:, None] + loss[None]).ravel()
        order = np.lexsort((all_gaps, all_costs))
        best_before = np.concatenate([[np.inf], np.minimum.accumulate(all_gaps[order])[:-1]])
        order = order[all_gaps[order] < best_before]
        if len(order) > most_states:
            return _hull_plans(unit_cost, unit_gap)
        costs, gaps = all_costs[order], all_gaps[order]
        survivors.append(order)
    plans = np.zeros((len(costs), encoding.units), dtype=np.int64)
    rows = np.arange(len(costs))
    for unit in range(encoding.units - 1, -1, -1):
        chosen = survivors[unit][rows]
        plans[:, unit], rows = chosen % len(width_costs), chosen // len(width_costs)
    return list(plans)


def _hull_plans(unit_cost: Array, unit_gap: Array) -> list[Levels]:
    relative = unit_cost / unit_cost.max()
    scale = np.abs(unit_gap).max() / relative.min()
    prices = np.concatenate([[0.0], np.geomspace(1e-9, 10, 400) * scale])
    plans = {tuple((unit_gap + price * relative).argmin(axis=1)): None for price in prices}
    return [np.array(plan) for plan in plans]


def spread_by_cost(plans: Sequence[Levels], count: int, source: PlanSource) -> list[Levels]:
    """Return `count` of the affordable plans: the nearest to evenly spaced costs between the least and the greatest."""
    plans = [plan for plan in plans if source.affordable(source.encoding.project(plan))]
    if len(plans) <= count:
        return list(plans)
    each = np.array([*source.width_costs, 0.0])  # level -1, a skipped step, is the last entry
    units = source.encoding.units  # genes of the sampler follow, and cost nothing
    costs = np.array([(source.encoding.lengths * each[plan[:units]]).sum() for plan in plans])
    every, free = np.array(plans), np.ones(len(plans), dtype=bool)
    chosen = []
    for target in np.linspace(costs.min(), costs.max(), count + 2)[1:-1]:
        i = int(np.where(free, np.abs(costs - target), np.inf).argmin())
        free &= (every != every[i]).any(axis=1)
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
    "dp": dp_levels,
    "fewer_steps": fewer_steps_levels,
    "random": random_levels,
}
"""How to make each kind of initial plans, by its name in `initial_plans`; `front:SEARCH` is handled apart."""
