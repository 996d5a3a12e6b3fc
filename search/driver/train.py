"""Train a supernet and prepare its features, in the supernet directory of a run."""

from __future__ import annotations

from pathlib import Path

from stepfront.addresses import resolved
from stepfront.checksums import begin_record
from stepfront.errors import InputError
from stepfront.search.config import RunSettings, save_settings
from stepfront.search.driver.reading_progress import Stage, encoding_progress, reading_progress
from stepfront.search.mlflow_runs.copies import keep_own_note, read_own_note
from stepfront.search.mlflow_runs.written import WrittenTraining
from stepfront.search.problem.user_parts import check_second_features
from stepfront.search.records.run_directory import SETTINGS_FILE
from stepfront.search.scoring.second_judge import FOLDER
from stepfront.search.storage.lock import clear_directory, directory_lock
from stepfront.search.tracking.store_check import StoreCheck
from stepfront.search.tracking.training_log import TrainingLog, warn_of
from stepfront.trainers.baselines.plain_network import plain_settings
from stepfront.trainers.data import ImageData
from stepfront.trainers.devices import ThreadWatch, device_of_driver
from stepfront.trainers.diffusion.conditioning import check_classes
from stepfront.trainers.latents.load_images import load_images
from stepfront.trainers.latents.reconstruction import ensure_reconstruction
from stepfront.trainers.metrics.judges import check_judge, prepare_judge
from stepfront.trainers.network_settings import PROMPTED
from stepfront.trainers.networks.card import CARD_FILE, SupernetCard, check_autoencoder, check_fingerprint, read_card
from stepfront.trainers.training.checkpoint_file import NO_EFFECT_ON_WEIGHTS, training_key
from stepfront.trainers.training.checkpoints import CheckpointStore
from stepfront.trainers.training.trainer import Report, TrainingReport, train_supernet
from stepfront.trainers.validation import settings_json


def run_training(settings: RunSettings, fresh: bool, report: Report, stage: Stage) -> tuple[SupernetCard, bool]:
    """Train the supernet of the settings, from where an interrupted training stopped.

    Returns the supernet's card, and False where it was trained already.  `fresh` starts over: what the directory holds
    is deleted.  Raises InputError when the data or an existing supernet does not fit the settings, and for a network
    that can't be trained.
    """
    if settings.network.family == PROMPTED:
        raise InputError(f"a network of family {PROMPTED} is searched as it is, not trained: stepfront search CONFIG")
    directory = settings.supernet_directory
    with directory_lock(directory):
        own = read_own_note(directory, WrittenTraining, settings.tracking.uri)
        mlflow = StoreCheck(settings, own, trains=True)
        data = read_to_train(settings, None if fresh else directory, stage)
        device = device_of_driver(settings.training.device, settings.training.workers)
        threads = own_threads(settings.training.device, settings.training.workers, stage)
        if fresh:  # only now: a mistake in the settings must not delete what exists
            _delete_training(settings, data, directory)
        begin_record(directory)
        log = TrainingLog(settings, data, directory)
        done = (directory / CARD_FILE).exists()
        if done:
            card = read_card(directory)
            check_fingerprint(card, data.fingerprint, directory)
            space = None if data.latents is None else data.latents.space
            check_autoencoder(card, settings.data.autoencoder, None if space is None else space.digest, directory)
            _check_same_training(card, settings, directory)
        else:
            keep_own_note(directory, WrittenTraining, settings.tracking.uri)
            save_settings(settings, directory / SETTINGS_FILE)
            if problem := mlflow.problem():
                stage(f"MLflow is not written: {problem}; the training continues without it")
            stage("training the supernet")
            card = train_or_continue(settings, data, directory, report, log, threads)
        warn_of(log.close(finished=True))
        stage("preparing features and reference statistics")
        judge = prepare_judge(data, settings.features, directory, device)
        if (reconstruction := ensure_reconstruction(data, judge, directory, device)) is not None:
            stage(reconstruction.sentence)
    return card, not done


def read_to_train(settings: RunSettings, judges: Path | None, stage: Stage) -> ImageData:
    """Return the images of the settings, checked before anything is written or deleted.

    Features of the user's own are tried in `judges`; None: in a temporary folder.  Raises InputError where the images
    can't be read, judged, or trained on with the settings' classes.
    """
    stage("reading the images")
    data = load_images(settings.data, reading_progress(stage), encoding=encoding_progress(stage))
    for line in [data.report.headline, *data.report.guesses]:
        stage(line)
    _check_judges(settings, data, judges)
    check_classes(data, settings.network.image_classes)
    return data


def own_threads(device: str, workers: int, stage: Stage) -> ThreadWatch | None:
    """Choose the threads of a process that trains itself, and return what chooses them again; None where workers train.

    `device` is the name in the settings.  `stage` gets a line where threads are given up.
    """
    if workers > 1:
        return None
    threads = ThreadWatch(device_of_driver(device, workers), stage)
    threads.look()
    return threads


def _check_judges(settings: RunSettings, data: ImageData, directory: Path | None) -> None:
    """Raise InputError where the judge of the search, or of its confirmation, can't judge these images."""
    check_judge(data, settings.features, directory)
    second = directory / FOLDER if directory is not None and (directory / CARD_FILE).exists() else None
    check_second_features(settings, data, second)


def plain_run(settings: RunSettings, width: float, stage: Stage) -> RunSettings:
    """Return the settings of a run that trains one width alone, for the network FLOPs of the settings' own training.

    Raises InputError for a width that the settings do not have.
    """
    stage("reading the images")
    data = load_images(settings.data, reading_progress(stage), encoding=encoding_progress(stage))
    alone = plain_settings(settings, width, *data.network_shape[:2])
    name = f"{settings.name}-plain-{width:g}"
    stage(f"{name}: width {width:g} alone, {alone.training.steps:,} steps for the FLOPs of {settings.training.steps:,}")
    return alone.model_copy(update={"name": name, "supernet": None})


def _delete_training(settings: RunSettings, data: ImageData, directory: Path) -> None:
    """Delete a supernet and its checkpoints.  Raises InputError for an imported one, which training cannot remake."""
    if (directory / CARD_FILE).exists() and "imported" in read_card(directory).made_with:
        raise InputError(f"{directory} holds an imported supernet; --fresh would delete it: train in another directory")
    if store := checkpoint_store(settings, data):
        store.delete()
    clear_directory(directory)


def train_or_continue(
    settings: RunSettings,
    data: ImageData,
    directory: Path,
    report: Report,
    log: TrainingLog,
    threads: ThreadWatch | None = None,
) -> SupernetCard:
    """Train a supernet in `directory` from its last checkpoint, and record it in `log`.

    `threads` are those of this process, where it trains itself.
    """
    store = checkpoint_store(settings, data)

    def log_and_report(state: TrainingReport) -> None:
        log.add(state)
        report(state)
        if threads is not None:
            threads.look()

    log.complete()
    try:
        if settings.training.workers == 1:
            return train_supernet(settings, data, directory, log_and_report, store)
        from stepfront.search.training.distributed_training import train_on_cluster

        return train_on_cluster(settings, data, directory, log_and_report, store)
    except BaseException:
        log.close(finished=False, timeout=10)
        raise


def checkpoint_store(settings: RunSettings, data: ImageData) -> CheckpointStore | None:
    """Return the store that training.checkpoints names; None where the supernet's directory is the only place."""
    uri = settings.training.checkpoints
    return None if uri is None else CheckpointStore(resolved(uri), training_key(settings, data))


def _check_same_training(card: SupernetCard, settings: RunSettings, directory: Path) -> None:
    """Raise InputError when an existing supernet was trained with other settings."""
    made = card.made_with.get("settings")
    if made is None:
        return
    now = settings_json(settings)
    for group in ("network", "diffusion", "training"):
        # Settings that are younger than the supernet had what is their default today.
        then = settings_json(type(getattr(settings, group))()) | made[group]
        for key in then:
            if key not in NO_EFFECT_ON_WEIGHTS and then[key] != now[group].get(key):
                raise InputError(
                    f"the supernet in {directory} was trained with {group}.{key} {then[key]!r}, not "
                    f"{now[group].get(key)!r}; give another name, or start over with --fresh"
                )
