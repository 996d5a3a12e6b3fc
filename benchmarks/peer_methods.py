"""Search with what a user would otherwise pick; each function returns the scores in the order of their evaluation.

All of them run on the genes of a space of stages, [units] integers.  Optuna's samplers are charged for the repeats that
they ask for, because their users are; the others ask for none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import optuna

from benchmarks.methods import Score
from stepfront.arrays import Array
from stepfront.search.genomes.encodings import Encoding, Levels
from stepfront.search.initial_plans.plan_kinds import PlanSource, least_gap_plans, make_initial_plans
from stepfront.search.pareto import front_indices, hypervolume_gains

MakeSampler = Callable[[int], optuna.samplers.BaseSampler]
"""Return the sampler of a seed."""

RANDOM_FIRST = 20
"""Random plans that a model starts from where it has no initial plans."""

_PENALTY = 0.1
"""Ridge penalty of the additive model, in squared units of log FID; it must only keep unseen levels finite."""


def optuna_search(
    make_sampler: MakeSampler,
    source: PlanSource,
    score: Score,
    budget: int,
    seed: int,
    initial: Mapping[str, int],
    categorical: bool = False,
) -> Array:
    """Search with a sampler of Optuna on integers, or on categories as its documentation shows for NSGA-II.

    `initial` plans are enqueued, as a user of Optuna would.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=make_sampler(seed))
    encoding = source.encoding
    names = [f"g{i:03d}" for i in range(encoding.units)]
    for proposal in make_initial_plans(initial, source):
        study.enqueue_trial(dict(zip(names, map(int, encoding.unpack(proposal.genome)), strict=True)))

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        if categorical:
            choices = list(range(encoding.highest + 1))
            return score(np.array([trial.suggest_categorical(name, choices) for name in names]))
        return score(np.array([trial.suggest_int(name, 0, encoding.highest) for name in names]))

    study.optimize(objective, n_trials=budget)
    return np.array([trial.values for trial in study.trials])


def greedy_by_gap(source: PlanSource, score: Score, budget: int, seed: int) -> Array:
    """Narrow one unit by one level at a time, from full width: where the gap grows least per GFLOP saved.

    It needs no score to decide, so it ends after one plan per level and unit.
    """
    encoding = source.encoding
    gap = np.add.reduceat(source.gap(), np.cumsum(encoding.lengths) - encoding.lengths, axis=0)
    costs = encoding.lengths[:, None] * source.width_costs
    levels, units = np.full(encoding.units, encoding.highest), np.arange(encoding.units)
    scores = [score(levels)]
    while levels.any() and len(scores) < budget:
        lower = np.maximum(levels - 1, 0)
        saved = costs[units, levels] - costs[units, lower]
        lost = gap[units, lower] - gap[units, levels]
        at = int(np.argmin(np.where(saved > 0, lost / np.where(saved > 0, saved, 1.0), np.inf)))
        levels = levels - (units == at)
        scores.append(score(levels))
    return np.array(scores)


def greedy_by_fid(source: PlanSource, score: Score, budget: int, seed: int) -> Array:
    """Narrow one unit by one level at a time, from full width: where measured FID grows least per GFLOP saved."""
    encoding = source.encoding
    levels = np.full(encoding.units, encoding.highest)
    scores = [score(levels)]
    here = scores[0]
    while levels.any() and len(scores) < budget:
        lower = [levels - (np.arange(encoding.units) == i) for i in np.flatnonzero(levels)]
        found = [score(each) for each in lower][: budget - len(scores)]
        slopes = [(fid - here[0]) / (here[1] - gflops) for fid, gflops in found]
        at = int(np.argmin(slopes))
        levels, here = lower[at], found[at]
        scores += found
    return np.array(scores)


def gap_optima(source: PlanSource, score: Score, budget: int, seed: int) -> Array:
    """Evaluate the plans of least summed gap alone, from coarse to fine over the cost."""
    plans = least_gap_plans(source.encoding, source.width_costs, source.gap())
    return np.array([score(plans[i]) for i in coarse_to_fine(len(plans))[:budget]])


def coarse_to_fine(count: int) -> list[int]:
    """Return the indices below `count`: both ends, the middle, the quarters, and so on."""
    order: dict[int, None] = {}
    parts = 1
    while len(order) < count:
        order |= dict.fromkeys(np.linspace(0, count - 1, parts + 1).round().astype(int).tolist())
        parts *= 2
    return list(order)


def additive_model(source: PlanSource, score: Score, budget: int, seed: int, initial: Mapping[str, int]) -> Array:
    """Evaluate the plan that an additive model of log FID expects to add most hypervolume, one after another.

    Its front is exact, by the dynamic programming of the gap optima, so no plan of the space is left out.
    """
    encoding, costs = source.encoding, source.width_costs
    wanted = initial or {"random": RANDOM_FIRST}
    plans = [encoding.unpack(proposal.genome) for proposal in make_initial_plans(wanted, source)][:budget]
    scores = [score(levels) for levels in plans]
    seen, rng = {levels.tobytes() for levels in plans}, np.random.default_rng(seed)
    full = score(np.full(encoding.units, encoding.highest))[1]
    unit = full / (encoding.steps * costs[-1])
    while len(scores) < budget:
        known = np.array(scores)
        main, constant = _additive_terms(np.array(plans), np.log(known[:, 0]), encoding)
        # least_gap_plans adds up per step; a unit's term is spread over its steps.
        per_step = np.repeat(main / encoding.lengths[:, None], encoding.lengths, axis=0)
        new = [levels for levels in least_gap_plans(encoding, costs, per_step) if levels.tobytes() not in seen]
        chosen = _most_gain(new, main, constant, unit * encoding.lengths[:, None] * costs, known)
        levels = chosen if chosen is not None else _unseen(rng, plans, known, seen, encoding)
        plans.append(levels)
        seen.add(levels.tobytes())
        scores.append(score(levels))
    return np.array(scores)


def _additive_terms(plans: Levels, logs: Array, encoding: Encoding) -> tuple[Array, float]:
    """Return main terms [units, widths] and the constant, by ridge regression in its dual form."""
    one_hot = (plans[:, :, None] == np.arange(encoding.highest + 1)).reshape(len(plans), -1).astype(np.float64)
    middle = float(logs.mean())
    dual = np.linalg.solve(one_hot @ one_hot.T + _PENALTY * np.eye(len(logs)), logs - middle)
    return (one_hot.T @ dual).reshape(encoding.units, -1), middle


def _most_gain(plans: Sequence[Levels], main: Array, constant: float, costs: Array, known: Array) -> Levels | None:
    """Return the plan of greatest expected gain; None where none is expected to add anything."""
    if not plans:
        return None
    units = np.arange(main.shape[0])
    expected = [(np.exp(constant + main[units, each].sum()), costs[units, each].sum()) for each in plans]
    reference = [1.1 * float(known[:, 0].max()), 1.05 * float(costs[:, -1].sum())]
    gains = hypervolume_gains(np.array(expected), known[front_indices(known)], reference)
    return plans[int(gains.argmax())] if gains.max() > 0 else None


def _unseen(
    rng: np.random.Generator, plans: Sequence[Levels], known: Array, seen: set[bytes], encoding: Encoding
) -> Levels:
    """Return a plan that was not evaluated: a point of the front with one or more random changes."""
    front = front_indices(known)
    levels = np.array(plans[int(rng.choice(front))])
    while levels.tobytes() in seen:
        levels[rng.integers(encoding.units)] = rng.integers(0, encoding.highest + 1)
    return levels
