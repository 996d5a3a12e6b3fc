"""Run a second training per group of times on a trained supernet, and make a run of what comes out."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stepfront.checksums import CHECKSUMS_FILE, begin_record
from stepfront.errors import InputError
from stepfront.files import write_atomically
from stepfront.search.adaptation.gain import AdaptationLog, gflops_of_group
from stepfront.search.adaptation.train_groups import train_groups
from stepfront.search.config import RunSettings, load_settings, save_settings
from stepfront.search.driver.reading_progress import Stage
from stepfront.search.driver.train import own_threads, read_to_train
from stepfront.search.records.run_directory import GROUPS_FOLDER, SETTINGS_FILE, find_supernet
from stepfront.search.scoring.second_judge import FOLDER
from stepfront.search.storage.lock import clear_directory, directory_lock
from stepfront.search.storage.run_location import open_for_reading
from stepfront.search.training.parallel_trainings import trainings_at_once
from stepfront.tables.schema import ADAPTATION, TRAINING
from stepfront.trainers.adaptation.second_stage import STATE_FILE, SecondStage, check_base
from stepfront.trainers.devices import ThreadWatch, device_of_driver
from stepfront.trainers.metrics.judges import prepare_judge
from stepfront.trainers.networks.card import CARD_FILE, SupernetCard, check_autoencoder, read_card
from stepfront.trainers.networks.supernet_files import WEIGHTS_FILE
from stepfront.trainers.training.checkpoint_file import CHECKPOINT_FILE
from stepfront.trainers.training.trainer import Report

_NOT_THE_JUDGES = {
    *(
        CARD_FILE,
        WEIGHTS_FILE,
        CHECKPOINT_FILE,
        SETTINGS_FILE,
        TRAINING,
        ADAPTATION,
        CHECKSUMS_FILE,
        "mlflow.json",
        "lock",
    ),
    *("config.yaml", "origin.json"),
}
"""Files of a supernet's folder that belong to the supernet itself; the others are features and what they found."""


@dataclass(frozen=True)
class Adapted:
    """What a second stage made: the supernet in `directory`, and whether this call did."""

    directory: Path
    card: SupernetCard
    new: bool


def settings_of_supernet(place: str, overrides: list[str]) -> RunSettings:
    """Return the settings that a supernet was trained with, for a run beside its own.

    Its name and folder are those of the supernet's run as it lies there, where the overrides have no others.  Raises
    InputError where the supernet's folder has no settings, as that of an imported one.
    """
    directory = find_supernet(open_for_reading(place).local)
    path = directory / SETTINGS_FILE
    if not path.exists():
        raise InputError(f"{directory} has no settings.yaml; give a CONFIG whose supernet it is")
    settings = load_settings(path, overrides)
    changes: dict[str, str] = {"supernet": str(directory)}
    if directory.name == "supernet":
        own = {"name": directory.parent.name, "directory": str(directory.parent.parent)}
        given = {override.partition("=")[0].strip() for override in overrides}
        changes |= {key: value for key, value in own.items() if key not in given}
    return settings.model_copy(update=changes)


def adapted_settings(settings: RunSettings) -> RunSettings:
    """Return the settings of the run that a second stage makes: NAME-groups-COUNT, or NAME-merged-COUNT."""
    name = f"{settings.name}-{'merged' if settings.adapt.merge else 'groups'}-{settings.adapt.groups.count}"
    return settings.model_copy(update={"name": name, "supernet": None})


def run_adaptation(settings: RunSettings, base: str, fresh: bool, report: Report, stage: Stage) -> Adapted:
    """Train the groups of the settings' run from the supernet at `base`, from where an interrupted call stopped.

    `fresh` starts over.  Raises InputError when data, supernet and settings do not fit each other, or where the run
    was begun from another supernet or with other settings, and where it would write over the supernet at `base`.
    """
    source = find_supernet(open_for_reading(base).local)
    directory = settings.supernet_directory
    if source.resolve().is_relative_to(directory.resolve()):
        raise InputError(
            f"a second stage in {directory} would write over the supernet that it starts from; give another name"
        )
    check_base(read_card(source), settings, source)
    with contextlib.ExitStack() as held:
        held.enter_context(directory_lock(directory))
        groups = directory / GROUPS_FOLDER if fresh else _groups_folder(settings)
        if groups.parent != directory:
            held.enter_context(directory_lock(groups.parent))
        second, machine = _prepare(settings, source, groups, stage)
        if fresh:  # only now: a mistake in the settings must not delete what exists
            clear_directory(directory)
        begin_record(directory)
        second.check_state()
        log = AdaptationLog(second, settings, directory)
        if (directory / CARD_FILE).exists():
            return Adapted(directory, _complete(second, settings, directory, log), False)
        second.keep_state()
        save_settings(settings, directory / SETTINGS_FILE)
        for line in _announcement(second, source):
            stage(line)
        return Adapted(directory, _train(second, machine, directory, fresh, report, stage, log), True)


@dataclass(frozen=True)
class _Machine:
    """What a second stage trains on: so many groups at once, all its workers, and the driver's own threads, if any."""

    at_once: int
    workers: int
    threads: ThreadWatch | None


def _prepare(
    settings: RunSettings, source: Path, groups: Path, stage: Stage
) -> tuple[SecondStage[RunSettings], _Machine]:
    """Read images and supernet, and check that they fit; nothing is written."""
    at_once = trainings_at_once(settings, settings.adapt.groups.count)
    workers = max(settings.training.workers, at_once)
    data = read_to_train(settings, None, stage)
    threads = own_threads(settings.training.device, workers, stage)
    device = device_of_driver(settings.training.device, workers)
    second = SecondStage.checked(settings, settings.adapt, data, source, groups, device)
    space = None if data.latents is None else data.latents.space
    check_autoencoder(second.card, settings.data.autoencoder, None if space is None else space.digest, source)
    return second, _Machine(at_once, workers, threads)


def _complete(
    second: SecondStage[RunSettings], settings: RunSettings, directory: Path, log: AdaptationLog
) -> SupernetCard:
    """Return the card of the supernet that the stage has made; write what tables and MLflow lack of it."""
    card = _checked(read_card(directory), second, directory)
    for group in second.folders:
        log.groups.complete(group, settings, second.data)
    log.finish(card)
    return card


def _train(
    second: SecondStage[RunSettings],
    machine: _Machine,
    directory: Path,
    fresh: bool,
    report: Report,
    stage: Stage,
    log: AdaptationLog,
) -> SupernetCard:
    """Train the groups, and make the supernet of them with the features of the one that they start from."""
    try:
        train_groups(
            second.trainings(), machine.at_once, second.data, fresh, report, stage, log.groups, machine.threads
        )
    except BaseException:
        log.interrupt()
        raise
    stage("merging the groups" if second.adapt.merge else "joining the groups")
    _copy_judges(second.base, directory)
    device = device_of_driver(second.settings.training.device, machine.workers)
    prepare_judge(second.data, second.settings.features, directory, device)
    card = second.finish(directory)
    log.finish(card)
    return card


def _groups_folder(settings: RunSettings) -> Path:
    """Return where the groups are trained: in the run of the other form where they are there, else in the run's own."""
    other = settings.adapt.model_copy(update={"merge": not settings.adapt.merge})
    words = ("-merged-", "-groups-")
    mine, theirs = words if settings.adapt.merge else words[::-1]
    head, _, tail = settings.name.rpartition(mine)
    beside = settings.model_copy(update={"name": f"{head}{theirs}{tail}", "adapt": other}).supernet_directory
    own = settings.supernet_directory / GROUPS_FOLDER
    shared = beside / GROUPS_FOLDER
    return shared if (shared / STATE_FILE).exists() and not (own / STATE_FILE).exists() else own


def _announcement(second: SecondStage[RunSettings], source: Path) -> list[str]:
    """Return what a second stage will do and cost, before it begins."""
    card, adapt = second.card, second.adapt
    ranges = ", ".join(f"{first}-{last}" for first, last in second.groups.times(card.diffusion.steps))
    count = len(second.groups.first)
    tflops = gflops_of_group(second) * count / 1000
    lines = [f"{count} groups by {adapt.groups.by}: times {ranges}; {adapt.steps:,} steps each, {tflops:.3g} TFLOPs"]
    if not adapt.merge:
        size = (source / WEIGHTS_FILE).stat().st_size / 2**20
        full = size * count / (2 if adapt.weights == "bfloat16" else 1)
        lines.append(f"file and memory: {full:.3g} MB in place of {size:.3g} MB; a worker loads what its plans run")
    return lines


def _copy_judges(source: Path, directory: Path) -> None:
    """Copy the features of a supernet's folder, so that searches of both are judged by the same."""
    for folder in ("", FOLDER):
        for path in (source / folder).glob("*"):
            new = directory / folder / path.name
            if path.is_file() and path.name not in _NOT_THE_JUDGES and path.name[0] != "." and not new.exists():
                write_atomically(new, partial(shutil.copyfile, path))


def _checked(card: SupernetCard, second: SecondStage[RunSettings], directory: Path) -> SupernetCard:
    """Return the card of a supernet that exists; raise InputError where another stage made it."""
    adapted = dict(card.made_with.get("adapted", {}))
    if adapted.pop("from", None) != second.card.digest:
        raise InputError(
            f"the supernet in {directory} was not adapted from the one in {second.base}; give another name, or start "
            "over with --fresh"
        )
    training = card.made_with.get("settings", {}).get("training", {})
    then = {f"adapt.{key}": value for key, value in adapted.items()}
    then |= {f"training.{key}": value for key, value in training.items()}
    second.check_same(then, f"the supernet in {directory} was adapted")
    return card
