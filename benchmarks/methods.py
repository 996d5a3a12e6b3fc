"""Run search methods on one space, score and budget; each returns the scores in the order of their evaluation.

No method is charged twice for a plan, with one exception: Optuna's and pymoo's own algorithms, as shipped, are charged
for the repeats that they ask for, because their users are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.storages import InMemoryStorage

from stepfront.search.algorithm.ddsm import DDSMSearch
from stepfront.search.algorithm.nsga2 import BlockNSGAII
from stepfront.search.algorithm.screening import make_screening
from stepfront.search.algorithm.surrogate import EarlierModel, PlanFeatures
from stepfront.search.algorithm.trials import Proposal
from stepfront.search.config import ScreenSettings, VariationSettings
from stepfront.search.genomes.candidates import UnitSums
from stepfront.search.genomes.encodings import Encoding, Levels
from stepfront.search.initial_plans.plan_kinds import PlanSource, make_initial_plans
from stepfront.search.study.budget import Limits
from stepfront.search.study.ledger import Asked, Ledger
from stepfront.trainers.evaluation import Evaluation

NO_SCREEN = ScreenSettings(proxy="none", offspring=1)

Score = Callable[[Levels], tuple[float, float]]
"""Return (fid, gflops) of levels."""


def ours(
    source: PlanSource,
    score: Score,
    budget: int,
    seed: int,
    initial: Mapping[str, int],
    variation: VariationSettings | None = None,
    screen: ScreenSettings = NO_SCREEN,
    in_flight: int = 1,
    earlier: Sequence[EarlierModel] = (),
    front: Sequence[Proposal] = (),
    packet: int = 1,
) -> np.ndarray:
    """Search with stepfront's own ledger and sampler, in memory.

    `in_flight` packets of `packet` plans are always under way, as with so many workers of equal speed.  `earlier` are
    models of earlier searches, and `front` plans of theirs, which come after the uniform ones.
    """
    encoding = source.encoding
    full = score(np.full(encoding.units, encoding.highest))[1]
    # The cost alone, without an evaluation: levels and width costs give it as the plan would.
    unit = full / (encoding.steps * source.width_costs[-1])
    prices = UnitSums(encoding.lengths[:, None] * np.array([*source.width_costs, 0.0]))
    screening = make_screening(
        screen,
        encoding,
        lambda: PlanFeatures(encoding, source.gap(), tuple(earlier), screen.coding),
        lambda plans: unit * prices(plans)[:, None],
    )
    plans = make_initial_plans(initial, source)
    uniform = [plan for plan in plans if plan.origin == "uniform"]
    sampler = BlockNSGAII(
        encoding,
        variation or VariationSettings(),
        seed,
        [*uniform, *front, *(plan for plan in plans if plan.origin != "uniform")],
        screen.offspring,
        screening,
        neighbours=screen.neighbours,
        lead=screening.lead if screening is not None and screening.has_earlier else None,
        climb=screen.steps_of_climb,
    )
    ledger = Ledger(
        InMemoryStorage(),
        sampler,
        ("fid", "gflops"),
        (),
        Limits(trials=budget),
        {},
        {"gflops": full, "latency_ms": 1.0},
    )
    if screening is not None:
        screening.watch(ledger.progress)
    under_way: deque[list[Asked]] = deque()
    while (asked := _asked(ledger, packet)) or under_way:
        if asked:
            under_way.append(asked)
        if not asked or len(under_way) == in_flight:
            for one in under_way.popleft():
                fid, gflops = score(encoding.unpack(one.genome))
                ledger.tell(one.number, Evaluation(fid, gflops, 1.0, "", 1, 0), "here")
    return ledger.progress.scores()


def _asked(ledger: Ledger, most: int) -> list[Asked]:
    """Return the plans of the next packet; none where the budget is asked for."""
    found: list[Asked] = []
    while len(found) < most and (asked := ledger.ask()) is not None:
        found.append(asked)
    return found


def optuna_shipped(encoding: Encoding, score: Score, budget: int, seed: int, population: int) -> np.ndarray:
    """Search with Optuna's NSGAIISampler and one categorical parameter per gene, as its documentation shows."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.NSGAIISampler(population_size=population, seed=seed)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        choices = list(range(encoding.highest + 1))
        return score(np.array([trial.suggest_categorical(f"g{i:03d}", choices) for i in range(encoding.units)]))

    study.optimize(objective, n_trials=budget)
    return np.array([trial.values for trial in study.trials])


def pymoo_shipped(encoding: Encoding, score: Score, budget: int, seed: int, population: int) -> np.ndarray:
    """Search with pymoo's NSGA-II for integers: SBX crossover and polynomial mutation, rounded, without duplicates."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import ElementwiseProblem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    scores: list[tuple[float, float]] = []

    class Space(ElementwiseProblem):
        def __init__(self) -> None:
            super().__init__(n_var=encoding.units, n_obj=2, xl=0, xu=encoding.highest, vtype=int)

        def _evaluate(self, x: np.ndarray, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            scores.append(score(x.astype(np.int64)))
            out["F"] = scores[-1]

    algorithm = NSGA2(
        pop_size=population,
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
        mutation=PM(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    minimize(Space(), algorithm, ("n_eval", budget), seed=seed, verbose=False)
    return np.array(scores[:budget])


def random_plans(encoding: Encoding, score: Score, budget: int, seed: int) -> np.ndarray:
    """Evaluate plans of independent genes, without repeats."""
    rng = np.random.default_rng(seed)
    seen: dict[bytes, tuple[float, float]] = {}
    while len(seen) < min(budget, (encoding.highest + 1) ** encoding.units):
        levels = rng.integers(0, encoding.highest + 1, encoding.units)
        if levels.tobytes() not in seen:
            seen[levels.tobytes()] = score(levels)
    return np.array(list(seen.values()))


def ddsm(encoding: Encoding, score: Score, budget: int, seed: int) -> np.ndarray:
    """Search with DDSM's algorithm on the genes of this space (search/algorithm/ddsm.py)."""
    search, scores = DDSMSearch(encoding, seed), []
    full = score(np.full(encoding.units, encoding.highest))[1]
    while len(scores) < budget and (plans := search.ask(budget - len(scores))):
        new = [score(levels) for levels in plans]
        scores += new
        search.tell([(fid, gflops / full) for fid, gflops in new])
    return np.array(scores)


def monotone_plans(encoding: Encoding, score: Score, budget: int, seed: int) -> np.ndarray:
    """Evaluate plans that never narrow toward the clean end, in random order, as many as the budget allows."""
    rng = np.random.default_rng(seed)
    units, highest = encoding.units, encoding.highest
    plans: list[Levels] = []
    if units <= 12:
        borders = {tuple(sorted(b)) for b in np.ndindex(*(units + 1,) * highest) if tuple(sorted(b)) == b}
        plans = [np.searchsorted(np.array(b), np.arange(units), side="right") for b in sorted(borders)]
        plans = [plans[i] for i in rng.permutation(len(plans))]
    else:
        seen = set()
        while len(plans) < budget:
            levels = np.searchsorted(np.sort(rng.integers(0, units + 1, highest)), np.arange(units), side="right")
            if levels.tobytes() not in seen:
                seen.add(levels.tobytes())
                plans.append(levels)
    return np.array([score(levels) for levels in plans[:budget]])
