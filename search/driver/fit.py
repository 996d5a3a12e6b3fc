"""Fit samplers or weights to points of a front that a user names, as trials of a search that has ended."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pandas as pd

from stepfront.errors import InputError
from stepfront.search.driver.open_ledger import open_ledger
from stepfront.search.driver.reading_progress import reading_progress
from stepfront.search.driver.write_tables import TableWriter
from stepfront.search.execution.ray_session import ray_session
from stepfront.search.fitting.plans import Fit, Fitting
from stepfront.search.fitting.weights import SamplerFit, WeightFit, WeightFitting
from stepfront.search.learning.distance_features import distance_features
from stepfront.search.learning.search_samplers import Stage
from stepfront.search.problem.costs import load_or_measure_costs
from stepfront.search.problem.load import load_problem_of_search
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.learnt_samplers import read_samplers
from stepfront.search.records.plan_rows import fitted_weights_of, plan_of_row
from stepfront.search.records.run_directory import find_search
from stepfront.search.scoring.second_judge import check_not_second_judge
from stepfront.search.scoring.versus import SAMPLERS
from stepfront.search.storage.lock import directory_lock
from stepfront.search.study.optuna_storage import recorded_study
from stepfront.tables.points import pick_point
from stepfront.tables.search_tables import Snapshot, read_baselines, read_snapshot
from stepfront.trainers.variant import SKIP, parse_variants

_MARKED = "reuses features, is unguided, has a scale of guidance of its own or has less depth at some steps"


def fit_points(path: Path, point: str, stage: Stage, command: str = "") -> list[Fit]:
    """Learn the sampler of a front point, or of all with `front`; each that helps becomes a trial of origin `fit`.

    The trial has its parent's cost and widths.  Raises InputError when there is no such point, when it can't have a
    sampler of its own, and when learning fails for all points.
    """
    directory, settings = find_search(path)
    with directory_lock(directory), ray_session(settings.workers):
        numbers = _points(read_snapshot(directory), point)
        stage("reading supernet, images and features")
        problem = load_problem_of_search(settings, directory)
        check_distance(problem)
        costs = load_or_measure_costs(problem, directory)
        with recorded_study(settings.storage, directory), closing(open_ledger(problem, costs, directory)) as ledger:
            fitting = Fitting(problem, costs, directory, ledger, stage)
            fits = fitting.fit(numbers)
            if not fits:
                raise InputError(next(iter(fitting.failures.values())))
            TableWriter(problem, ledger, costs, directory, command).write()
    return fits


def fit_point_weights(path: Path, point: str, steps: int, stage: Stage, command: str = "") -> WeightFit:
    """Fit the weights to the plan of a front point by `steps` training steps; the result is a trial of origin `fit`.

    A trial on fitted weights stands for the one that they were fitted to; one on a fitted sampler keeps it.  Raises
    InputError when there is no such point, and where weights can't be fitted to it.
    """
    directory, settings = find_search(path)
    with directory_lock(directory), ray_session(settings.workers):
        if point == "front":
            raise InputError("weights are fitted to one point at a time; give --point knee or a trial's number")
        row = pick_point(read_snapshot(directory).front, point)
        number = int(row["parents"][0] if fitted_weights_of(str(row["learnt"])) else row["trial"])
        if _is_marked(row):
            raise InputError(f"trial {number} {_MARKED}, and weights are fitted to widths alone; give another --point")
        stage("reading supernet, images and features")
        problem = load_problem_of_search(settings, directory)
        costs = load_or_measure_costs(problem, directory)
        with recorded_study(settings.storage, directory), closing(open_ledger(problem, costs, directory)) as ledger:
            progress = reading_progress(stage, what="fitting the weights")
            fit = WeightFitting(problem, costs, directory, stage, progress).fit(ledger, number, steps)
            TableWriter(problem, ledger, costs, directory, command).write()
    return fit


def fit_sampler_weights(path: Path, plan: str, steps: int, stage: Stage) -> SamplerFit:
    """Fit the weights to a full-width sampler of the baseline `samplers`: of `plan`, such as 11x1.00, or the best.

    The next confirmation scores it beside the front, as help that the front has.  Raises InputError where the search
    has no such baseline, and where weights can't be fitted.
    """
    directory, settings = find_search(path)
    with directory_lock(directory), ray_session(settings.workers):
        row = _best_sampler(directory, plan)
        stage("reading supernet, images and features")
        problem = load_problem_of_search(settings, directory)
        costs = load_or_measure_costs(problem, directory)
        progress = reading_progress(stage, what="fitting the weights")
        fitting = WeightFitting(problem, costs, directory, stage, progress)
        chosen = plan_of_row(row, read_samplers(directory))
        return fitting.fit_sampler(chosen, str(row["sampler"]), float(row["fid"]), steps)


def _best_sampler(directory: Path, plan: str) -> pd.Series:
    """Return the full-width sampler of least FID by the search's own score: of a plan, or of all with `best`."""
    baselines = read_baselines(directory)
    samplers = baselines[baselines["method"] == SAMPLERS]
    found = samplers if plan == "best" else samplers[samplers["plan"] == plan]
    if not len(found):
        plans = ", ".join(["best", *samplers["plan"].drop_duplicates()]) if len(samplers) else "none is scored yet"
        raise InputError(f"no full-width sampler {plan} among the baselines of {directory}; possible: {plans}")
    return found.sort_values("fid").iloc[0]


def check_distance(problem: SearchProblem) -> None:
    """Raise InputError where the features that samplers learn to match can't be had, or are the second judge's."""
    features = distance_features(problem)
    if features is not None:
        check_not_second_judge(problem, features)


def _points(snapshot: Snapshot, point: str) -> list[int]:
    """Return the trials to fit.  Raises InputError for a point that can't be fitted.

    A fitted trial stands for the one that it was fitted to: the call that made it can be repeated.
    """
    front = snapshot.front
    rows = front if point == "front" and len(front) else pick_point(front, point).to_frame().T
    reasons = {_fitted_to(row, snapshot.trials): _why_not(row) for _, row in rows.iterrows()}
    numbers = [number for number, reason in reasons.items() if not reason]
    if not numbers:
        number, reason = next(iter(reasons.items()))
        raise InputError(f"trial {number} {reason}; give another --point")
    return numbers


def _fitted_to(row: pd.Series, trials: pd.DataFrame) -> int:
    """Return the trial that the search proposed; weights may be fitted to a plan on a fitted sampler."""
    while row["origin"] == "fit":
        row = trials[trials["trial"] == row["parents"][0]].iloc[0]
    return int(row["trial"])


def _why_not(row: pd.Series) -> str:
    """Return why no sampler can be fitted to a plan; empty where one can."""
    if SKIP in row["widths"]:
        return "leaves out steps, and a fitted sampler has one time per step that runs"
    if _is_marked(row):
        return f"{_MARKED}, and a sampler is fitted to widths alone"
    return ""


def _is_marked(row: pd.Series) -> bool:
    """Return whether a plan has steps that run more than a width: reuse, guidance of its own or none, or less depth."""
    return any(variant.mark for variant in parse_variants(str(row["plan"])))
