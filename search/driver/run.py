"""Whole runs: settings in; a trained supernet, or a search directory with study, tables and report, out."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Protocol

from stepfront.addresses import resolved
from stepfront.errors import InputError
from stepfront.files import write_json
from stepfront.search.algorithm.initial_plans import make_initial_plans
from stepfront.search.algorithm.nsga2 import BlockNSGAII
from stepfront.search.algorithm.proxies import ProxyScore, gap_score
from stepfront.search.algorithm.proxy_agreement import correlations, proxies_table
from stepfront.search.algorithm.screening import Screening, make_screening
from stepfront.search.config import RunSettings, save_settings
from stepfront.search.driver.reading_progress import reading
from stepfront.search.driver.search_facts import search_facts
from stepfront.search.execution.executor import ray_session, run_trials
from stepfront.search.execution.interrupt import second_one_ends
from stepfront.search.execution.placement import slots_now, worker_count
from stepfront.search.execution.prometheus import Gauges
from stepfront.search.execution.shared_prefixes import shared_prefixes
from stepfront.search.execution.tune_searcher import Job
from stepfront.search.execution.worker import LoadEvaluator
from stepfront.search.problem.costs import evaluation_limit, keep_gap, load_or_measure_costs
from stepfront.search.problem.problem import Ingredients, threads_per_worker, worker_device
from stepfront.search.records import tables
from stepfront.search.records.run_directory import FACTS_FILE, SETTINGS_FILE, anchored
from stepfront.search.records.tables import Snapshot
from stepfront.search.storage.lock import clear_directory, directory_lock
from stepfront.search.storage.working_copy import for_any_machine, known_as
from stepfront.search.study.budget import Limits
from stepfront.search.study.ledger import Ledger
from stepfront.search.study.optuna_storage import delete_study, finished_numbers, open_storage, study_name
from stepfront.search.tracking.training_runs import TrainingLog, warn_of
from stepfront.search.tracking.writer_process import MlflowProcess
from stepfront.trainers.config import settings_json
from stepfront.trainers.data import ImageData, load_data
from stepfront.trainers.devices import pick_device
from stepfront.trainers.diffusion.conditioning import check_classes
from stepfront.trainers.evaluation import Evaluator
from stepfront.trainers.inference.cost import WidthCost
from stepfront.trainers.metrics.features import check_features, prepare_features
from stepfront.trainers.networks.card import CARD_FILE, SupernetCard, check_fingerprint, read_card
from stepfront.trainers.training.checkpoint_file import NO_EFFECT_ON_WEIGHTS, training_key
from stepfront.trainers.training.checkpoints import CheckpointStore
from stepfront.trainers.training.trainer import Report, TrainingReport, train_supernet

LEAST_PAUSE = 5.0
"""Seconds between two writings of the tables while a search runs."""

Stage = Callable[[str], None]
"""Told what is being done, in a few words."""


def train(settings: RunSettings, fresh: bool, report: Report, stage: Stage) -> tuple[SupernetCard, bool]:
    """Trains the supernet and its features in the run's supernet directory; whether there was anything to do."""
    directory = settings.supernet_directory
    with directory_lock(directory):
        stage("reading the images")
        data = load_data(settings.data, reading(stage))
        # Workers have devices of their own; the driver of a cluster may lack theirs.
        device = pick_device("auto" if settings.training.workers > 1 else settings.training.device)
        check_features(data, settings.features)
        check_classes(data, settings.network.classes)
        done = (directory / CARD_FILE).exists()
        if fresh:  # only now: a mistake in the settings must not cost what is there
            if done and "imported" in read_card(directory).made_with:
                raise InputError(
                    f"{directory} holds an imported supernet; --fresh would delete it: train in another one"
                )
            if store := _checkpoint_store(settings, data):
                store.delete()
            clear_directory(directory)
            done = False
        log = TrainingLog(settings, data, directory)
        if done:
            card = read_card(directory)
            check_fingerprint(card, data.fingerprint, directory)
            _check_same_training(card, settings, directory)
        else:
            save_settings(settings, directory / SETTINGS_FILE)
            stage("training the supernet")
            card = _train_supernet(settings, data, directory, report, log)
        warn_of(log.close(finished=True))
        stage("preparing features and reference statistics")
        prepare_features(data, settings.features, directory, device)
    return card, not done


def _train_supernet(
    settings: RunSettings, data: ImageData, directory: Path, report: Report, log: TrainingLog
) -> SupernetCard:
    store = _checkpoint_store(settings, data)

    def told(state: TrainingReport) -> None:
        log.add(state)
        report(state)

    try:
        if settings.training.workers == 1:
            return train_supernet(settings, data, directory, told, store)
        from stepfront.search.execution.distributed_training import train_on_cluster

        return train_on_cluster(settings, data, directory, told, store)
    except BaseException:
        log.close(finished=False, timeout=10)
        raise


def _checkpoint_store(settings: RunSettings, data: ImageData) -> CheckpointStore | None:
    """What training.checkpoints names; None where the supernet's directory is the only place."""
    uri = settings.training.checkpoints
    return None if uri is None else CheckpointStore(resolved(uri), training_key(settings, data))


def _check_same_training(card: SupernetCard, settings: RunSettings, directory: Path) -> None:
    made = card.made_with.get("settings")
    if made is None:
        return
    now = settings_json(settings)
    for group in ("network", "diffusion", "training"):
        # Settings that are younger than the supernet had what is now their default.
        then = settings_json(type(getattr(settings, group))()) | made[group]
        for key in then:
            if key not in NO_EFFECT_ON_WEIGHTS and then[key] != now[group].get(key):
                raise InputError(
                    f"the supernet in {directory} was trained with {group}.{key} {then[key]!r}, not "
                    f"{now[group].get(key)!r}; give another name, or start over with --fresh"
                )


class View(Protocol):
    """What a search tells while it runs; the terminal's live view is one."""

    def update(self, ledger: Ledger, total: int, workers: int) -> None:
        """Called after every result."""


def search(settings: RunSettings, fresh: bool, view: View, stage: Stage, command: str = "") -> Path:
    """Runs the search of the settings to the end of its budget, from where it stands; returns its directory."""
    settings = anchored(settings)
    directory = settings.search_directory
    with directory_lock(directory):
        stage("reading supernet, images and features")
        ingredients = Ingredients.load(settings, reading(stage))
        with ray_session(settings.workers):
            slots_now(settings.workers)
            if fresh:  # only now: a mistake in the settings must not cost what is there
                delete_study(settings.storage, directory)
                clear_directory(directory)
            stage("measuring the widths")
            costs = load_or_measure_costs(ingredients, directory)
            keep_gap(ingredients, directory)
            check_nothing_lost(settings, directory)
            with closing(open_ledger(ingredients, costs, directory)) as ledger:
                save_settings(for_any_machine(settings), directory / SETTINGS_FILE)
                if not ledger.hopeless and (ledger.waiting or not ledger.spent()):
                    stage("searching")
                    hint = f"go on with: stepfront resume {known_as(directory.parent)}"
                    with second_one_ends(hint) as check_interrupt:
                        _execute(ingredients, costs, ledger, directory, view, command, check_interrupt)
                write_tables(ingredients, ledger, costs, directory, command)
    return directory


def check_nothing_lost(settings: RunSettings, directory: Path) -> None:
    """InputError when the study is damaged, or lacks trials that the table beside it has: a search that went on would
    write over them."""
    study = finished_numbers(settings.storage, directory)
    if study is None:
        raise InputError(f"the study in {directory} is damaged; {REBUILD}")
    if lost := tables.told_numbers(directory) - study:
        raise InputError(f"the study in {directory} lacks {len(lost)} of the trials in {tables.TRIALS}; {REBUILD}")


REBUILD = "`stepfront doctor SEARCH --repair` rebuilds it from trials.parquet, `--fresh` begins anew"


def open_ledger(ingredients: Ingredients, costs: dict[float, WidthCost], directory: Path) -> Ledger:
    """The study in `directory` with the sampler of the settings."""
    settings = ingredients.settings
    initial = make_initial_plans(settings.initial_plans, ingredients.plan_source(costs))
    screening = screening_of(ingredients, costs)
    sampler = BlockNSGAII(
        ingredients.encoding,
        settings.variation,
        settings.search_seed,
        initial,
        offspring=settings.screen.offspring,
        screen=screening,
        affordable=ingredients.affordable(costs),
    )
    budget = settings.budget
    full = len(ingredients.times)
    latency = 0.0 if costs[1.0].latency_ms is None else costs[1.0].step_ms
    full_costs = {"gflops": costs[1.0].step_gflops * full, "latency_ms": latency * full}
    ledger = Ledger(
        storage=open_storage(settings.storage, directory),
        name=study_name(settings.storage, directory),
        sampler=sampler,
        objectives=settings.evaluation.objectives,
        constraints=settings.evaluation.constraints,
        limits=Limits(budget.trials, budget.minutes and 60 * budget.minutes, budget.tflops, budget.patience),
        spec=ingredients.spec(costs),
        full_costs=full_costs,
        attempts=settings.workers.attempts,
    )
    if screening is not None:
        screening.watch(ledger)
    return ledger


def screening_of(ingredients: Ingredients, costs: dict[float, WidthCost]) -> Screening | None:
    """The screening of the settings; None where every child is evaluated."""
    evaluation, prices = ingredients.settings.evaluation, ingredients.prices(costs)

    def paired() -> ProxyScore:
        evaluator = Evaluator(ingredients.parts(costs, "cpu", 0))
        return lambda levels: evaluator.paired(ingredients.plan_at(levels), evaluation.noise_seed)

    return make_screening(
        ingredients.settings.screen,
        ingredients.encoding,
        lambda: ingredients.plan_features,
        lambda levels: [prices[name](levels) for name in evaluation.objectives[1:]],
        paired,
    )


def _execute(
    ingredients: Ingredients,
    costs: dict[float, WidthCost],
    ledger: Ledger,
    directory: Path,
    view: View,
    command: str,
    check_interrupt: Callable[[], None],
) -> None:
    settings = ingredients.settings
    workers = worker_count(settings.workers)
    mlflow, gauges = MlflowProcess(settings, directory), Gauges(settings.name)
    next_writing = time.monotonic() + LEAST_PAUSE

    def write() -> None:
        snapshot = write_tables(ingredients, ledger, costs, directory, command)
        mlflow.update()
        gauges.tables(snapshot, mlflow.waiting(len(snapshot.trials)))

    def on_result() -> None:
        nonlocal next_writing
        view.update(ledger, settings.budget.trials or 0, workers)
        due = ledger.finished % settings.variation.population == 0 and time.monotonic() > next_writing
        if due and len(ledger.complete):
            begin = time.monotonic()
            write()
            # Tables of thousands of trials take their time, and a worker may wait for it: a fiftieth is enough.
            next_writing = time.monotonic() + max(LEAST_PAUSE, 50 * (time.monotonic() - begin))

    def on_step() -> None:
        check_interrupt()
        gauges.queue(ledger)

    parts = ingredients.parts(costs, worker_device(settings), threads_per_worker(settings))
    job = Job(ingredients.plan_of, settings.evaluation.images, settings.evaluation.noise_seed)
    try:
        limit = evaluation_limit(settings, costs, settings.evaluation.images)
        with shared_prefixes(settings.workers) as shared:
            run_trials(
                ledger,
                LoadEvaluator(parts, shared),
                job,
                settings.workers,
                on_result,
                limit,
                on_step,
            )
    except KeyboardInterrupt:
        if len(ledger.complete):
            write()
        raise
    finally:
        mlflow.stop()


def write_tables(
    ingredients: Ingredients, ledger: Ledger, costs: dict[float, WidthCost], directory: Path, command: str
) -> Snapshot:
    """Brings the search's tables and facts in line with its study."""
    settings = ingredients.settings
    trials = tables.trials_table(ledger, ingredients.plan_of)
    if not (trials["state"] == "complete").any():
        reasons = trials["error"].value_counts()
        why = f"; the commonest reason: {reasons.index[0]}" if len(reasons) else ""
        raise InputError(f"no trial of the search in {directory} has a score{why}")
    front = tables.front_table(trials, settings.evaluation.objectives)
    confirmed = tables.read_confirmed(directory)
    if confirmed is not None:
        front = tables.with_confirmation(front, confirmed[confirmed["used"]], settings.evaluation.objectives)
    progress = tables.progress_table(ledger)
    baselines = trials[(trials["origin"] == "uniform") & (trials["state"] == "complete")].assign(method="uniform")
    encoding, gap = ingredients.encoding, ingredients.gap
    proxies = proxies_table(trials, gap_score(encoding, gap), ingredients.plan_features, encoding.unpack)
    facts = search_facts(ingredients, ledger, costs, trials, command, directory) | {"proxy_tau": correlations(proxies)}
    tables.write_table(proxies.assign(features=ingredients.features.name), directory / tables.PROXIES)
    if not (directory / tables.BASELINES).exists():
        tables.write_table(baselines.reset_index(drop=True), directory / tables.BASELINES)
    tables.write_table(trials, directory / tables.TRIALS)
    tables.write_table(front, directory / tables.FRONT)
    tables.write_table(progress, directory / tables.PROGRESS)
    write_json(directory / FACTS_FILE, facts)
    return Snapshot(trials, progress, front, facts)
