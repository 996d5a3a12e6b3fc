"""Run a search: evaluate plans until the budget is used, and keep its tables up to date meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path

from stepfront.checksums import begin_record
from stepfront.search.config import RunSettings, save_settings
from stepfront.search.driver.fit import check_distance
from stepfront.search.driver.open_ledger import check_continues, check_nothing_lost, expect_noise, open_ledger
from stepfront.search.driver.reading_progress import Stage, encoding_progress, reading_progress
from stepfront.search.driver.search_report import SearchReport, View
from stepfront.search.driver.write_tables import TableWriter
from stepfront.search.earlier.earlier_models import what_is_taught
from stepfront.search.earlier.kept_tables import begun_settings, continuing, earlier_names, keep_earlier
from stepfront.search.earlier.usable_plans import left_out
from stepfront.search.execution.executor import run_trials
from stepfront.search.execution.interrupt import interruptible
from stepfront.search.execution.placement import WorkerCount, slots_now
from stepfront.search.execution.prometheus import Gauges
from stepfront.search.execution.ray_session import ray_session
from stepfront.search.execution.tune_searcher import Job
from stepfront.search.extending.larger_space import check_larger
from stepfront.search.fitting.pauses import FitPauses
from stepfront.search.fitting.plans import Fitting
from stepfront.search.learning.search_samplers import samplers_of_search
from stepfront.search.mlflow_runs.copies import keep_own_note, read_own_note
from stepfront.search.mlflow_runs.written import WrittenSearch
from stepfront.search.observers.observing import Observers
from stepfront.search.problem.costs import (
    add_latencies,
    ensure_gap_table,
    ensure_step_errors,
    load_or_measure_costs,
)
from stepfront.search.problem.decoder_cost import ensure_decoder_cost
from stepfront.search.problem.evaluator_parts import worker_load
from stepfront.search.problem.load import check_inputs, load_problem, warn_of_bias, with_samplers
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.problem.user_parts import check_second_features, check_user_scores
from stepfront.search.records.layout_version import check_format
from stepfront.search.records.learnt_samplers import SamplerRecord, write_search_samplers
from stepfront.search.records.run_directory import SETTINGS_FILE, anchored
from stepfront.search.scoring.baselines import ensure_sampler_scores
from stepfront.search.scoring.measure_noise import ensure_score_noise
from stepfront.search.scoring.record_judges import record_judges
from stepfront.search.scoring.second_judge import FOLDER
from stepfront.search.scoring.versus import write_comparison_with_baselines
from stepfront.search.storage.lock import clear_directory, directory_lock
from stepfront.search.storage.run_location import RunLocation
from stepfront.search.study.optuna_storage import NAME_FILE, delete_study, foreign_study, recorded_study
from stepfront.search.tracking.store_check import StoreCheck
from stepfront.search.tracking.writer_process import MlflowProcess
from stepfront.tables.schema import METHOD_SCORES
from stepfront.trainers.devices import pick_device
from stepfront.trainers.inference.cost import WidthCost
from stepfront.trainers.latents.reconstruction import ensure_reconstruction

LEAST_PAUSE = 5.0
"""Seconds between two writes of the tables while a search runs, at least."""


def run_search(
    settings: RunSettings,
    fresh: bool,
    view: View,
    stage: Stage,
    command: str = "",
    location: RunLocation | None = None,
    extend: bool = False,
) -> Path:
    """Run the search of the settings to the end of its budget, from where it stopped; return its directory.

    `fresh` deletes what the directory holds and starts over.  With `extend` the settings may have a larger space than
    the search had so far.  Hints name the run by its `location`, by default the directory.  Raises InputError when the
    supernet, the data or an existing study does not fit the settings.
    """
    settings = anchored(settings)
    directory = settings.search_directory
    if not fresh:
        given, settings = earlier_names(settings), begun_settings(settings)
        if earlier_names(settings) != given:
            stage(continuing(settings))
    check_inputs(settings)  # before the directory is made: a mistake in the settings leaves nothing behind
    with directory_lock(directory):
        if not fresh:
            check_format(directory)
        mlflow = StoreCheck(settings, read_own_note(directory, WrittenSearch, settings.tracking.uri), trains=False)
        problem = _load_checked(settings, stage)
        if extend:
            check_larger(problem, directory)
        with ray_session(settings.workers):
            slots_now(settings.workers)
            if fresh:  # only now: a mistake in the settings must not delete what exists
                start_over(settings, directory)
            problem, costs, samplers = _prepare(problem, directory, extend, stage)
            with (
                recorded_study(settings.storage, directory),
                closing(open_ledger(problem, costs, directory, extend)) as ledger,
            ):
                writer = TableWriter(problem, ledger, costs, directory, command)
                _begin(writer, samplers, stage)
                hint = f"continue with: stepfront resume {location or directory.parent}"
                if not ledger.hopeless and (ledger.interrupted or not ledger.budget_exhausted):
                    _search(writer, mlflow, view, stage, hint)
                _end(writer, stage, hint)
    return directory


def _load_checked(settings: RunSettings, stage: Stage) -> SearchProblem:
    """Return what is searched, with the user's own parts tried on it."""
    stage("reading supernet, images and features")
    problem = load_problem(settings, reading_progress(stage), encoding_progress(stage))
    warn_of_bias(problem)
    check_user_scores(settings, problem.data)
    check_second_features(settings, problem.data, problem.supernet.local / FOLDER)
    if settings.learns:
        check_distance(problem)
    return problem


def _prepare(
    problem: SearchProblem, directory: Path, extend: bool, stage: Stage
) -> tuple[SearchProblem, dict[float, WidthCost], dict[int, SamplerRecord]]:
    """Measure and learn what the search needs before its first trial, or find it in `directory`.

    Returns the problem on its samplers, costs by width, and samplers by number of steps.
    """
    begin_record(directory)
    stage("measuring the widths")
    costs = load_or_measure_costs(problem, directory)
    check_nothing_lost(problem.settings, directory)
    check_continues(problem, costs, directory, extend)  # before anything is learnt, or replaced
    costs = add_latencies(problem, costs, directory) if extend else costs
    ensure_decoder_cost(problem, directory)
    samplers = samplers_of_search(problem, costs, directory, stage)
    problem = with_samplers(problem, samplers)
    ensure_gap_table(problem, directory)
    ensure_step_errors(problem, directory)
    return problem, costs, samplers


def _begin(writer: TableWriter, samplers: dict[int, SamplerRecord], stage: Stage) -> None:
    """Write what the search begins with, now that its study is open."""
    problem, ledger, directory = writer.problem, writer.ledger, writer.directory
    write_search_samplers(directory, samplers)
    keep_own_note(directory, WrittenSearch, problem.settings.tracking.uri)
    save_settings(problem.settings, directory / SETTINGS_FILE)
    if ledger.enter_space() and len(ledger.complete):
        writer.write()
    record_judges(problem, directory)
    _measure_floor(problem, stage)


def _search(writer: TableWriter, mlflow: StoreCheck, view: View, stage: Stage, hint: str) -> None:
    """Evaluate trials until the budget is used."""
    problem, ledger, settings = writer.problem, writer.ledger, writer.problem.settings
    if settings.evaluation.noise_repeats:
        stage("measuring the noise of scores")
    expect_noise(ledger, problem, ensure_score_noise(problem, writer.costs, writer.directory))
    if unwritten := mlflow.problem():
        stage(f"MLflow is not written: {unwritten}; the search continues without it")
    if not ledger.finished:
        _report_left_out(problem, stage)
    stage("searching")
    with Observers(settings) as observers, interruptible(hint) as check_interrupt:
        _evaluate_trials(writer, view, stage, check_interrupt, observers)


def _end(writer: TableWriter, stage: Stage, hint: str) -> None:
    """Write the tables of the finished search, and score full width on other samplers."""
    writer.write_steps(writer.write())
    if (writer.directory / METHOD_SCORES).exists():  # an extended search: its baselines are scored already
        write_comparison_with_baselines(writer.directory, writer.problem.settings)
    _score_samplers(writer, stage, hint)


def start_over(settings: RunSettings, directory: Path) -> None:
    """Delete the study of a search and what its directory holds, except the lock.

    The study's name stays where it is surely this search's own: copies made by hand are recognised by it.
    """
    delete_study(settings.storage, directory)
    clear_directory(directory, kept=[] if foreign_study(settings.storage, directory) else [NAME_FILE])


def _report_left_out(problem: SearchProblem, stage: Stage) -> None:
    """Report what earlier searches teach, and which of their plans can't be used here, in a line per search each."""
    settings, copies = problem.settings, keep_earlier(problem.settings, problem.settings.search_directory)
    taught = what_is_taught(settings.initial_plans, problem.encoding, settings.screen.proxy, copies)
    for name, one in taught.items():
        stage(one.sentence(name))
    for sentence in left_out(settings.initial_plans, problem.encoding, copies):
        stage(sentence)


def _measure_floor(problem: SearchProblem, stage: Stage) -> None:
    """Measure the FID of the autoencoder alone where the supernet's directory lacks it, and report it."""
    judge, device = (problem.features, problem.reference), pick_device("cpu")
    if (floor := ensure_reconstruction(problem.data, judge, problem.supernet.local, device)) is not None:
        stage(floor.sentence)


def _score_samplers(writer: TableWriter, stage: Stage, hint: str) -> None:
    ledger, problem = writer.ledger, writer.problem
    if problem.settings.evaluation.samplers and ledger.ended and len(ledger.complete):
        stage("scoring full width with other samplers")
        with interruptible(hint) as check_interrupt:
            ensure_sampler_scores(problem, writer.costs, writer.directory, check_interrupt)


def _evaluate_trials(
    writer: TableWriter, view: View, stage: Stage, check_interrupt: Callable[[], None], observers: Observers
) -> None:
    problem, ledger, costs = writer.problem, writer.ledger, writer.costs
    settings = problem.settings
    plan_text = cache(problem.plan_text)
    report = SearchReport(ledger, settings.budget.trials or 0, WorkerCount(settings.workers), plan_text)
    records = _LiveRecords(writer, settings.variation.population, observers)

    def on_result() -> None:
        view.update(report)
        records.on_result()

    def on_step() -> None:
        check_interrupt()
        records.gauges.queue(ledger)

    job = Job(problem.plan_of, settings.evaluation.images, settings.evaluation.noise_seed)
    fitting = Fitting(problem, costs, writer.directory, ledger, stage, check_interrupt)
    pauses = FitPauses(fitting, settings.fit, settings.variation.population)
    try:
        with worker_load(problem, costs, settings.evaluation.images) as (load, limit):
            pauses.schedule()
            while True:
                if not pauses.due:  # a search that was interrupted in a pause begins with it
                    run_trials(ledger, load, job, settings.workers, on_result, limit, on_step)
                if not pauses.due:
                    break
                pauses.run()
                pauses.schedule()
                view.update(report)
                stage("searching")
        if observers and len(ledger.complete):
            observers.update(writer.write())  # the last generation may be incomplete
    except KeyboardInterrupt:
        if len(ledger.complete):
            records.write()
        raise
    finally:
        records.mlflow.stop()


class _LiveRecords:
    """Keeps tables, MLflow and gauges up to date while trials finish."""

    def __init__(self, writer: TableWriter, population: int, observers: Observers) -> None:
        settings = writer.problem.settings
        self._writer, self._ledger, self._population = writer, writer.ledger, population
        self._observers = observers
        self.mlflow, self.gauges = MlflowProcess(settings, writer.directory), Gauges(settings.name)
        self._next_write = time.monotonic() + LEAST_PAUSE

    def on_result(self) -> None:
        """Write the tables after each generation, unless they were written a moment ago."""
        generation_ends = self._ledger.finished % self._population == 0
        if generation_ends and time.monotonic() > self._next_write and len(self._ledger.complete):
            begin = time.monotonic()
            self.write()
            # Tables of thousands of trials take a while, and a worker may wait: use a fiftieth of the time at most.
            self._next_write = time.monotonic() + max(LEAST_PAUSE, 50 * (time.monotonic() - begin))

    def write(self) -> None:
        """Write the tables, and bring MLflow and the gauges in line with them."""
        snapshot = self._writer.write()
        self.mlflow.update()
        self._observers.update(snapshot)
        self.gauges.tables(snapshot, self.mlflow.waiting(len(snapshot.trials)))
