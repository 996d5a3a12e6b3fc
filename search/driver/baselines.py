"""What a search must beat: a finished search in; baselines on the same noise, images and number of evaluations out.

Every family is cut to as many plans as the search had evaluations.  A plan that has a score keeps it: scores are
deterministic.  Results: baselines.parquet (a row a plan and method), methods.parquet (hypervolume a method) and
versus.parquet (for each front point the best baseline at equal or lower cost).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stepfront.errors import InputError
from stepfront.search.algorithm.ddsm import DDSMSearch
from stepfront.search.algorithm.encodings import Encoding, Levels, Steps
from stepfront.search.algorithm.initial_plans import PlanSource, least_gap_plans, monotone_levels, spread_by_cost
from stepfront.search.config import RunSettings
from stepfront.search.driver.confirm import apply_confirmation
from stepfront.search.execution.executor import ray_session
from stepfront.search.execution.plan_scorer import PlanScorer
from stepfront.search.execution.shared_prefixes import shared_prefixes
from stepfront.search.execution.worker import LoadEvaluator
from stepfront.search.pareto import front_indices, hypervolume
from stepfront.search.problem.costs import evaluation_limit, load_or_measure_costs
from stepfront.search.problem.problem import Ingredients, threads_per_worker, worker_device
from stepfront.search.records import tables
from stepfront.search.records.run_directory import find_search, read_snapshot
from stepfront.search.storage.lock import directory_lock
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.inference.cost import WidthCost, plan_gflops

METHODS = ("uniform", "one_cut", "two_cut", "monotone", "random", "gap", "fewer_steps", "ddsm")

OnResult = Callable[[str, int, int], None]
"""method, done, total"""


def baseline_plans(method: str, count: int, ingredients: Ingredients, source: PlanSource) -> list[Plan]:
    """At most `count` plans of a family, spread evenly over cost where it is larger."""
    settings = ingredients.settings
    if method == "fewer_steps":
        # Their cost is their number; the largest, which is all of the steps, is always among them.
        steps = np.linspace(settings.sampler.steps, 1, min(count, settings.sampler.steps)).round()
        return [Plan(ingredients.times_of(n), (1.0,) * n, settings.sampler.solver) for n in sorted(map(int, steps))]
    families: dict[str, Callable[[PlanSource, int], Sequence[Levels]]] = {
        "uniform": lambda s, n: [np.full(s.encoding.units, level) for level in range(s.encoding.highest + 1)],
        "one_cut": lambda s, n: list(cut_plans(s.encoding, 1)),
        "two_cut": lambda s, n: list(cut_plans(s.encoding, 2)),
        "monotone": lambda s, n: monotone_levels(n, s),
        "random": _random,
        "gap": lambda s, n: least_gap_plans(s.encoding, s.width_costs, s.gap()),
    }
    chosen = spread_by_cost(families[method](source, count), count, source)
    return [Plan(ingredients.times, source.encoding.step_widths(levels), settings.sampler.solver) for levels in chosen]


def cut_plans(encoding: Encoding, cuts: int) -> Iterator[Levels]:
    """All plans with exactly `cuts` cut points between units, or, of more than 20 units, at 19 even positions."""
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


def _random(source: PlanSource, count: int) -> list[Levels]:
    rng, e = np.random.default_rng([source.seed, 3]), source.encoding
    drawn = [tuple(map(int, rng.integers(0, e.highest + 1, e.units))) for _ in range(4 * count)]
    return [np.array(levels) for levels in list(dict.fromkeys(drawn))[:count]]


def run_baselines(
    path: Path, methods: Sequence[str], evaluations: int | None, on_result: OnResult = lambda m, d, t: None
) -> Path:
    """Scores the methods and writes the three tables.  InputError for an unknown method."""
    unknown = [method for method in methods if method not in METHODS]
    if unknown:
        raise InputError(f"unknown baseline {unknown[0]!r}; possible: {', '.join(METHODS)}")
    directory, settings = find_search(path)
    with directory_lock(directory):
        ingredients = Ingredients.of_search(settings, directory)
        snapshot = read_snapshot(directory)
        count = evaluations or int((snapshot.trials["state"] == "complete").sum())
        with ray_session(settings.workers):
            costs = load_or_measure_costs(ingredients, directory)
            source = ingredients.plan_source(costs)
            parts = ingredients.parts(costs, worker_device(settings), threads_per_worker(settings))
            limit = evaluation_limit(settings, costs, settings.evaluation.images)
            with (
                shared_prefixes(settings.workers) as shared,
                PlanScorer(LoadEvaluator(parts, shared), settings.workers, limit) as scorer,
            ):
                table = _Baselines(ingredients, costs, directory, snapshot.trials, scorer)
                for method in methods:
                    table.method(method, count, source, on_result)
        table.save()
        summarise(directory)
        apply_confirmation(directory)
    return directory


class _Baselines:
    """Scores each plan once, whichever methods ask for it, and keeps what earlier calls scored."""

    def __init__(
        self,
        ingredients: Ingredients,
        costs: dict[float, WidthCost],
        directory: Path,
        trials: pd.DataFrame,
        scorer: PlanScorer,
    ) -> None:
        self._ingredients, self._directory, self._costs, self._scorer = ingredients, directory, costs, scorer
        path = directory / tables.BASELINES
        before = tables.read_table(path, "baselines") if path.exists() else pd.DataFrame()
        complete = trials[trials["state"] == "complete"]
        self._known: dict[tuple[Any, ...], dict[str, Any]] = {}
        for table in (before, complete):
            for _, row in table.iterrows():
                self._known[_key(tables.plan_of_row(row))] = _plain(row)
        self._by_method: dict[str, list[dict[str, Any]]] = {}
        if len(before):
            for method, rows in before.groupby("method"):
                self._by_method[str(method)] = [_plain(row) for _, row in rows.iterrows()]

    def method(self, method: str, count: int, source: PlanSource, on_result: OnResult) -> None:
        """Scores the plans of one method."""
        if method == "ddsm":
            self._by_method[method] = self._ddsm(count, source, on_result)
            return
        plans = baseline_plans(method, count, self._ingredients, source)
        self._by_method[method] = self._rows(method, plans, lambda d, t: on_result(method, d, t))
        self.save()

    def _ddsm(self, count: int, source: PlanSource, on_result: OnResult) -> list[dict[str, Any]]:
        # DDSM's genes are steps; a gene a step of ours is its own space.
        ingredients = self._ingredients
        encoding = Steps(source.encoding.steps, source.encoding.widths, False)
        search = DDSMSearch(encoding, source.seed)
        full = plan_gflops(ingredients.uniform_plan(1.0), self._costs)
        rows: list[dict[str, Any]] = []
        while len(rows) < count:
            population = search.ask(count - len(rows))
            if not population:
                break
            solver = ingredients.settings.sampler.solver
            plans = [Plan(ingredients.times, encoding.step_widths(levels), solver) for levels in population]
            done = len(rows)
            scored = self._rows("ddsm", plans, lambda d, t, done=done: on_result("ddsm", done + d, count))  # type: ignore[misc]
            rows += scored
            search.tell([(_or_worst(row["fid"]), row["gflops"] / full) for row in scored])
        return rows

    def _rows(self, method: str, plans: Sequence[Plan], on_result: Callable[[int, int], None]) -> list[dict[str, Any]]:
        evaluation = self._ingredients.settings.evaluation
        fresh = list({_key(plan): plan for plan in plans if _key(plan) not in self._known}.values())
        if fresh:
            asked = [(plan, evaluation.noise_seed) for plan in fresh]
            scored = self._scorer.score(asked, evaluation.images, on_result)
            for plan, result in zip(fresh, scored, strict=True):
                self._known[_key(plan)] = tables.scored_row(plan, result)
        return [dict(self._known[_key(plan)]) | {"method": method} for plan in plans]

    def save(self) -> None:
        """Writes what is scored so far."""
        rows = [row for method in METHODS for row in self._by_method.get(method, []) if np.isfinite(row["fid"])]
        frame = pd.DataFrame(rows)
        tables.write_table(frame.reindex(columns=[*tables.TRIAL_COLUMNS, "method"]), self._directory / tables.BASELINES)


def _or_worst(fid: float) -> float:
    return fid if np.isfinite(fid) else float("inf")


def _plain(row: pd.Series) -> dict[str, Any]:
    return {str(key): value for key, value in row.items()}


def _key(plan: Plan) -> tuple[Any, ...]:
    return (plan.widths, plan.times, plan.solver)


def summarise(directory: Path) -> None:
    """Writes methods.parquet and versus.parquet from trials, front and baselines."""
    snapshot = read_snapshot(directory)
    baselines = tables.read_table(directory / tables.BASELINES, "baselines")
    complete = snapshot.trials[snapshot.trials["state"] == "complete"]
    objectives = list(snapshot.facts.get("objectives", ["fid", "gflops"]))
    reference = _reference(snapshot.facts, objectives, pd.concat([complete, baselines]))
    methods = [("search", complete), *((str(name), rows) for name, rows in baselines.groupby("method", sort=False))]
    union = hypervolume(_scores(pd.concat([complete, baselines]), objectives), reference)
    features = str(snapshot.facts.get("features", ""))
    rows = []
    for name, table in methods:
        volume = hypervolume(_scores(table, objectives), reference)
        spent = float((table["gflops"] * table["images"]).sum())
        rows.append(
            {
                "method": name,
                "evaluations": len(table),
                "hypervolume": volume,
                "share": volume / union,
                "features": features,
                "network_gflops": spent,
            }
        )
    tables.write_table(pd.DataFrame(rows), directory / tables.METHODS)
    tables.write_table(versus(snapshot.front, baselines, objectives[1]), directory / tables.VERSUS)


def versus(front: pd.DataFrame, baselines: pd.DataFrame, cost: str = "gflops") -> pd.DataFrame:
    """For each front point the best baseline at equal or lower `cost`, the search's own; no baseline where none is as
    cheap."""
    rows = []
    for _, point in front.iterrows():
        # A baseline's cost is the same sum in another order: equal means equal to rounding.
        affordable = baselines[baselines[cost] <= point[cost] * (1 + 1e-9)]
        best = affordable.loc[affordable["fid"].idxmin()] if len(affordable) else None
        rows.append(
            {
                "trial": int(point["trial"]),
                "gflops": float(point["gflops"]),
                "fid": float(point["fid"]),
                "features": str(point.get("features", "")),
                "baseline_method": None if best is None else str(best["method"]),
                "baseline_plan": None if best is None else str(best["plan"]),
                "baseline_gflops": float("nan") if best is None else float(best["gflops"]),
                "baseline_fid": float("nan") if best is None else float(best["fid"]),
            }
        )
    return pd.DataFrame(rows)


def advice(compared: pd.DataFrame, settings: RunSettings) -> str | None:
    """What a search should look for, too, going by `versus`; None where nothing is to be said."""
    beaten = int(((compared["baseline_method"] == "fewer_steps") & (compared["baseline_fid"] < compared["fid"])).sum())
    if not beaten or settings.space.skip == "even":
        return None
    return (
        f"fewer full-width steps beat {beaten} of {len(compared)} front points at equal or lower cost; a search under "
        "another name with --set space.skip=even"
        + (" --set space.encoding=steps" if settings.space.encoding == "cuts" else "")
        + " looks for such plans, too"
    )


def _scores(table: pd.DataFrame, objectives: list[str]) -> np.ndarray:
    scores = table[objectives].to_numpy(dtype=np.float64)
    return scores[front_indices(scores)]


def _reference(facts: Any, objectives: list[str], everything: pd.DataFrame) -> list[float]:
    """The search's own reference point, or one beyond everything."""
    point = facts.get("reference")
    worst = {name: (1.1 if name == "fid" else 1.05) * float(everything[name].max()) for name in objectives}
    return [float((point or worst)[name]) for name in objectives]
