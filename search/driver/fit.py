"""Fit samplers to points of a front: times and coefficients learnt for the plan's own widths."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from stepfront.search.algorithm.trials import Proposal
from stepfront.search.driver.open_ledger import open_ledger
from stepfront.search.driver.write_tables import TableWriter
from stepfront.search.execution.plan_scorer import PlanScorer
from stepfront.search.execution.ray_session import ray_session
from stepfront.search.execution.worker import LoadEvaluator
from stepfront.search.learning.search_samplers import find_or_learn, sampler_task
from stepfront.search.problem.costs import evaluation_limit, load_or_measure_costs
from stepfront.search.problem.evaluator_parts import worker_parts
from stepfront.search.problem.load import load_problem_of_search
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.learnt_samplers import SamplerRecord, write_sampler
from stepfront.search.records.run_directory import find_search
from stepfront.search.storage.lock import directory_lock
from stepfront.search.study.optuna_storage import recorded_study
from stepfront.tables.points import pick_point
from stepfront.tables.search_tables import read_snapshot
from stepfront.trainers.diffusion.plan import SKIP, Plan
from stepfront.trainers.evaluation import Evaluation
from stepfront.trainers.inference.cost import WidthCost

Stage = Callable[[str], None]
"""Called with what is being done."""


@dataclass(frozen=True)
class Fit:
    """A point, what learning its sampler brought, and its new trial; None where the closed form is as good."""

    trial: int
    fid: float
    record: SamplerRecord
    new_trial: int | None
    new_fid: float


def fit_points(path: Path, point: str, stage: Stage, command: str = "") -> list[Fit]:
    """Learn the sampler of a front point, or of all with `front`; each that helps becomes a trial of origin `fit`.

    The trial has its parent's cost and widths.  Raises InputError when there is no such point, and when a plan can't
    be scored.
    """
    directory, settings = find_search(path)
    with directory_lock(directory), ray_session(settings.workers):
        front = read_snapshot(directory).front
        rows = front if point == "front" else pick_point(front, point).to_frame().T
        rows = rows[[row["origin"] != "fit" and SKIP not in row["widths"] for _, row in rows.iterrows()]]
        stage("reading supernet, images and features")
        problem = load_problem_of_search(settings, directory)
        costs = load_or_measure_costs(problem, directory)
        plans = [tuple(map(float, row["widths"])) for _, row in rows.iterrows()]
        records = find_or_learn(problem, [sampler_task(problem, costs, widths, "solver") for widths in plans], stage)
        helpful = [record for record in records if record.chosen == "learnt"]
        stage("scoring the fitted plans")
        scored = dict(zip((r.sampler.digest for r in helpful), _scores(problem, costs, helpful), strict=True))
        for record in helpful:
            write_sampler(directory, record)
        with recorded_study(settings.storage, directory), closing(open_ledger(problem, costs, directory)) as ledger:
            fits = []
            for (_, row), record in zip(rows.iterrows(), records, strict=True):
                evaluation = scored.get(record.sampler.digest) if record in helpful else None
                number = None
                if evaluation is not None:
                    proposal = Proposal(str(row["genome"]), "fit", (int(row["trial"]),), record.sampler.digest)
                    number = ledger.add_finished(proposal, evaluation)
                fid = float("nan") if evaluation is None else evaluation.fid
                fits.append(Fit(int(row["trial"]), float(row["fid"]), record, number, fid))
            TableWriter(problem, ledger, costs, directory, command).write()
    return fits


def _scores(problem: SearchProblem, costs: dict[float, WidthCost], records: list[SamplerRecord]) -> list[Evaluation]:
    """Score the plans on the search's own noise and number of images."""
    if not records:
        return []
    settings = problem.settings
    evaluation = settings.evaluation
    plans = [Plan(r.sampler.times, r.widths, r.sampler.solver, r.sampler) for r in records]
    limit = evaluation_limit(settings, costs, evaluation.images)
    with PlanScorer(LoadEvaluator(worker_parts(problem, costs), None), settings.workers, limit) as scorer:
        jobs = [(plan, evaluation.noise_seed) for plan in plans]
        return list(scorer.score(jobs, evaluation.images, lambda done, total: None))
