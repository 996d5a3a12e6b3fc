"""Score the baselines of a finished search, with its noise, its images and its number of evaluations.

Every family is cut to as many plans as the search had evaluations.  A plan that has a score keeps it, since scores are
deterministic; one whose score is not finite has a row with the reason, which no comparison reads.  Results:
baselines.parquet (one row per plan and method), methods.parquet (one row per method) and versus.parquet (one row per
front point).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from stepfront.errors import InputError
from stepfront.search.algorithm.ddsm import DDSMSearch
from stepfront.search.config import RunSettings
from stepfront.search.execution.plan_scorer import PlanScorer
from stepfront.search.execution.ray_session import ray_session
from stepfront.search.genomes.encodings import Steps
from stepfront.search.initial_plans.plan_kinds import PlanSource
from stepfront.search.objectives import Objectives, violations
from stepfront.search.problem.baseline_plans import (
    DEEP_CACHE,
    INTERVAL,
    baseline_plans,
    full_width_samplers,
    methods_by_variants,
    variant_methods,
)
from stepfront.search.problem.costs import load_or_measure_costs, read_costs
from stepfront.search.problem.evaluator_parts import plan_scorer
from stepfront.search.problem.load import load_problem_of_search
from stepfront.search.problem.plan_source import make_plan_source
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.learnt_samplers import read_samplers
from stepfront.search.records.plan_rows import plan_of_row
from stepfront.search.records.run_directory import find_search
from stepfront.search.scoring.held_out_scorer import PlanKey, plan_name
from stepfront.search.scoring.versus import SAMPLERS, write_comparison_with_baselines
from stepfront.search.scoring.write_pause import WritePause
from stepfront.search.storage.lock import directory_lock
from stepfront.search.study.ledger import NOT_FINITE
from stepfront.search.study.views import evaluated_row
from stepfront.tables.parquet import read_optional_table, read_table, write_table
from stepfront.tables.schema import BASELINES, TRIAL_COLUMNS
from stepfront.tables.search_tables import read_snapshot
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluation import Evaluation
from stepfront.trainers.inference.cost import WidthCost, plan_gflops

METHODS = ("uniform", "one_cut", "two_cut", "monotone", "random", "gap", "fewer_steps", "ddsm")
"""Methods that get as many evaluations as the search had."""

POSSIBLE = (SAMPLERS, *METHODS, DEEP_CACHE, INTERVAL)

MOST_NAMED = 3
"""Most plans without a score that a warning names."""

OnResult = Callable[[str, int, int], None]
"""Called with the method, its finished evaluations and all of its evaluations."""


def run_baselines(
    path: Path, methods: Sequence[str] | None, evaluations: int | None, on_result: OnResult = lambda m, d, t: None
) -> Path:
    """Score the methods and write the three tables; return the search directory.

    None are all methods that the space has.  `evaluations` is the number per method; None means as many as the search
    had.  Raises InputError for no method, an unknown one, and one whose variants the space lacks.
    """
    directory, settings = find_search(path)
    _check_methods(methods, settings)
    with directory_lock(directory):
        problem = load_problem_of_search(settings, directory)
        snapshot = read_snapshot(directory)
        methods = _methods_of(problem, methods)
        count = evaluations or int((snapshot.trials["state"] == "complete").sum())
        with ray_session(settings.workers):
            costs = load_or_measure_costs(problem, directory)
            source = make_plan_source(problem, costs, problem.encoding_of_widths)
            with plan_scorer(problem, costs, settings.evaluation.images) as scorer:
                table = _BaselinesTable(problem, costs, directory, snapshot.trials, scorer)
                for method in methods:
                    table.add(method, count, source, on_result)
        table.save()
        write_comparison_with_baselines(directory, settings)
    return directory


def _check_methods(wanted: Sequence[str] | None, settings: RunSettings) -> None:
    """Raise InputError for no method and for an unknown one, before data and networks are read."""
    if wanted is None:
        return
    possible = ", ".join((SAMPLERS, *METHODS, *methods_by_variants(settings.space.listed)))
    if not wanted:
        raise InputError(f"no baseline was given; possible: {possible}")
    for method in wanted:
        if method not in POSSIBLE:
            raise InputError(f"unknown baseline {method!r}; possible: {possible}")


def _methods_of(problem: SearchProblem, wanted: Sequence[str] | None) -> Sequence[str]:
    possible = (SAMPLERS, *METHODS, *variant_methods(problem))
    for method in wanted or ():
        if method not in possible:
            lacking = "reuse features (r)" if method == DEEP_CACHE else "turn guidance off (1.0u)"
            raise InputError(f"the baseline {method} needs variants that {lacking}, and space.variants has none")
    return wanted or possible


def lacks_samplers(problem: SearchProblem, directory: Path) -> bool:
    """Return whether some full-width sampler has no row in baselines.parquet, or one of another name.

    One whose score is not finite has a row: to score it again would bring nothing else.
    """
    baselines = read_optional_table(directory / BASELINES)
    rows = baselines[baselines["method"] == SAMPLERS]
    learnt = read_samplers(directory)
    scored = {(_key(plan_of_row(row, learnt)), row["sampler"]) for _, row in rows.iterrows()}
    return any((_key(sampler.plan), sampler.name) not in scored for sampler in full_width_samplers(problem))


def score_samplers(
    problem: SearchProblem, directory: Path, scorer: PlanScorer, on_result: OnResult
) -> dict[PlanKey, str]:
    """Add the full-width samplers to baselines.parquet, scored as the search scores its plans.

    Returns why samplers could not be scored, such as for lack of time.  One whose score is not finite is none of them:
    it was scored, and is no rival of any plan.
    """
    trials = read_snapshot(directory).trials
    table = _BaselinesTable(problem, read_costs(directory), directory, trials, scorer)
    table.add_samplers(on_result)
    return {key: reason for key, reason in table.failed(SAMPLERS).items() if not _is_final(reason)}


def ensure_sampler_scores(
    problem: SearchProblem, costs: dict[float, WidthCost], directory: Path, on_result: Callable[[], None]
) -> None:
    """Score the full-width samplers where one is missing, and compare the search with them.

    Needs a Ray session, and the tables of the search.
    """
    if not lacks_samplers(problem, directory):
        return
    with plan_scorer(problem, costs, problem.settings.evaluation.images) as scorer:
        score_samplers(problem, directory, scorer, lambda method, done, total: on_result())
    write_comparison_with_baselines(directory, problem.settings)


class _BaselinesTable:
    """Scores each plan once, however many methods ask for it, and keeps the scores of earlier calls."""

    def __init__(
        self,
        problem: SearchProblem,
        costs: dict[float, WidthCost],
        directory: Path,
        trials: pd.DataFrame,
        scorer: PlanScorer,
    ) -> None:
        self._problem, self._directory, self._costs, self._scorer = problem, directory, costs, scorer
        path, learnt = directory / BASELINES, read_samplers(directory)
        before = read_table(path) if path.exists() else pd.DataFrame()
        complete = trials[trials["state"] == "complete"]
        self._scored: dict[tuple[Any, ...], dict[str, Any]] = {}
        for table in (before, complete):
            for _, row in table.iterrows():
                self._scored[_key(plan_of_row(row, learnt))] = _plain(row)
        self._by_method: dict[str, list[dict[str, Any]]] = {}
        if len(before):
            for method, rows in before.groupby("method"):
                self._by_method[str(method)] = [_plain(row) for _, row in rows.iterrows()]

    def add(self, method: str, count: int, source: PlanSource, on_result: OnResult) -> None:
        """Score the plans of one method."""
        if method == SAMPLERS:
            self.add_samplers(on_result)
            return
        if method == "ddsm":
            self._by_method[method] = self._ddsm(count, source, on_result)
        else:
            plans = baseline_plans(method, count, self._problem, source)
            self._by_method[method] = self._rows(method, plans, lambda d, t: on_result(method, d, t))
            self.save()
        self._name_failed(method)

    def add_samplers(self, on_result: OnResult) -> None:
        """Score full width with every sampler."""
        samplers = full_width_samplers(self._problem)
        plans = [sampler.plan for sampler in samplers]
        names = {_key(sampler.plan): sampler.name for sampler in samplers}
        rows = self._rows(SAMPLERS, plans, lambda d, t: on_result(SAMPLERS, d, t), names)
        self._by_method[SAMPLERS] = rows
        self.save()
        self._name_failed(SAMPLERS)

    def failed(self, method: str) -> dict[PlanKey, str]:
        """Return why plans of a method have no score, by their runs and samplers."""
        rows = [row for row in self._by_method.get(method, []) if not np.isfinite(row["fid"])]
        return {(str(row["plan"]), str(row.get("sampler") or "")): str(row["error"]) for row in rows}

    def _name_failed(self, method: str) -> None:
        """Warn of plans without a score: nothing is compared with them."""
        failed = self.failed(method)
        for final, hint in ((False, "`stepfront baselines` tries them again"), (True, "they are not tried again")):
            reasons = [f"{plan_name(key)}: {reason}" for key, reason in failed.items() if _is_final(reason) == final]
            if reasons:
                more = f"; and {len(reasons) - MOST_NAMED} more" if len(reasons) > MOST_NAMED else ""
                logging.getLogger("stepfront").warning(
                    "%d of %d plans of the baseline %s could not be scored, and nothing is compared with them (%s%s); "
                    "%s",
                    *(len(reasons), len(self._by_method[method]), method, "; ".join(reasons[:MOST_NAMED]), more, hint),
                )

    def _ddsm(self, count: int, source: PlanSource, on_result: OnResult) -> list[dict[str, Any]]:
        # DDSM's genes are steps; an encoding with one gene per step is its own space.
        problem = self._problem
        encoding = Steps(source.encoding.steps, source.encoding.widths, False)
        search = DDSMSearch(encoding, source.seed)
        full = plan_gflops(problem.uniform_plan(1.0), self._costs)
        rows: list[dict[str, Any]] = []
        while len(rows) < count:
            population = search.ask(count - len(rows))
            if not population:
                break
            plans = [problem.plan(encoding.step_widths(levels)) for levels in population]
            done = len(rows)
            scored = self._rows("ddsm", plans, lambda d, t, done=done: on_result("ddsm", done + d, count))  # type: ignore[misc]
            rows += scored
            self._by_method["ddsm"] = list(rows)  # an interruption keeps them
            search.tell([(_or_worst(row["fid"]), row["gflops"] / full) for row in scored])
        return rows

    def _rows(
        self,
        method: str,
        plans: Sequence[Plan],
        on_result: Callable[[int, int], None],
        names: Mapping[tuple[Any, ...], str] = MappingProxyType({}),
    ) -> list[dict[str, Any]]:
        """Return a row per plan, scored where it has none; `names` are names of samplers by the plans' keys.

        From time to time, and when interrupted, what is scored is written beside what the method had before.
        """
        evaluation = self._problem.settings.evaluation
        missing = {_key(plan): plan for plan in plans if _key(plan) not in self._scored}
        keys, before, pause = list(missing), self._by_method.get(method, []), WritePause()

        def row_of(key: tuple[Any, ...]) -> dict[str, Any]:
            return self._scored[key] | {"method": method} | ({"sampler": names[key]} if key in names else {})

        def write() -> None:
            self._by_method[method] = [*before, *(row_of(key) for key in keys if key in self._scored)]
            self.save()

        def on_score(i: int, result: Evaluation) -> None:
            self._scored[keys[i]] = evaluated_row(missing[keys[i]], result)
            pause.write(write)

        if missing:
            jobs = [(plan, evaluation.noise_seed) for plan in missing.values()]
            try:
                self._scorer.score(jobs, evaluation.images, on_result, on_score)
            except BaseException:
                write()
                raise
        return [row_of(_key(plan)) for plan in plans]

    def save(self) -> None:
        """Write all scores so far, and the plans whose score is not finite."""
        every = [row for method in POSSIBLE for row in self._by_method.get(method, [])]
        rows = [row for row in every if np.isfinite(row["fid"]) or _is_final(str(row["error"]))]
        frame = pd.DataFrame([{"sampler": ""} | row for row in rows])
        settings = self._problem.settings
        own = Objectives.of_settings(settings).scores
        frame = frame.reindex(columns=[*TRIAL_COLUMNS, "method", "sampler", *own])
        broken = np.nan_to_num(violations(frame, settings.evaluation.constraints))
        write_table(frame.assign(violation=broken), self._directory / BASELINES)


def _is_final(reason: str) -> bool:
    """Return whether a plan without a score for this reason was scored: its images give no finite score."""
    return NOT_FINITE in reason


def _or_worst(fid: float) -> float:
    return fid if np.isfinite(fid) else float("inf")


def _plain(row: pd.Series) -> dict[str, Any]:
    return {str(key): value for key, value in row.items()}


def _key(plan: Plan) -> tuple[Any, ...]:
    return (plan.variants, plan.times, plan.solver, plan.learnt and plan.learnt.digest, plan.weights)
