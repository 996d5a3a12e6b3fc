"""Train the groups of a second stage: one after the other in this process, or several at once on Ray workers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from stepfront.errors import InputError
from stepfront.search.adaptation.group_logs import GroupLogs
from stepfront.search.config import RunSettings, save_settings
from stepfront.search.driver.reading_progress import Stage
from stepfront.search.driver.train import checkpoint_store, train_or_continue
from stepfront.search.records.run_directory import SETTINGS_FILE
from stepfront.search.tracking.training_log import TrainingLog
from stepfront.search.training.parallel_trainings import Job, named, train_at_once
from stepfront.trainers.adaptation.second_stage import GroupTraining
from stepfront.trainers.data import ImageData
from stepfront.trainers.devices import ThreadWatch
from stepfront.trainers.training.checkpoint_file import CHECKPOINT_FILE, step_of
from stepfront.trainers.training.trainer import Report, TrainingReport

Training = GroupTraining[RunSettings]


def _name(training: Training) -> str:
    first, last = training.times
    return f"group {training.number + 1}, times {first} to {last}"


def train_groups(
    trainings: Sequence[Training],
    at_once: int,
    data: ImageData,
    fresh: bool,
    report: Report,
    stage: Stage,
    logs: GroupLogs | None = None,
    threads: ThreadWatch | None = None,
) -> None:
    """Train the groups that are not trained yet, `at_once` at most at a time, each from its last checkpoint.

    `report` gets the steps of all.  `fresh` forgets checkpoints that training.checkpoints holds.  `logs` opens and ends
    the groups' logs.  `threads` are those of this process, where it trains itself.  Raises InputError that names the
    group where the training of one fails.
    """
    logs = logs or GroupLogs()
    progress, begun = _Progress(trainings, report), []
    for one in trainings:
        if one.done:
            stage(f"{_name(one)}: is trained")
            logs.complete(one.directory, one.settings, data)
        else:
            begun.append(_begin(one, data, fresh, logs))
    if not begun:
        return
    with _with_names_of_adapt():
        if at_once == 1:
            _one_after_the_other(begun, data, progress, stage, logs, threads)
        else:
            _at_once(begun, at_once, data, progress, stage, logs)


def _one_after_the_other(
    groups: Sequence[_Begun],
    data: ImageData,
    progress: _Progress,
    stage: Stage,
    logs: GroupLogs,
    threads: ThreadWatch | None,
) -> None:
    for group in groups:
        stage(group.name)
        with named(group.name):
            of_all = progress.of(group.training.number)
            train_or_continue(group.settings, data, group.training.directory, of_all, group.log, threads)
        logs.end(group.log)


def _at_once(
    groups: Sequence[_Begun], most: int, data: ImageData, progress: _Progress, stage: Stage, logs: GroupLogs
) -> None:
    cpus = groups[0].settings.workers.cpus
    stage(f"{len(groups)} groups on Ray, up to {most} at once, {cpus:g} CPUs each")
    under_way = {group.name: group.log for group in groups}
    for log in under_way.values():
        log.complete()
    try:
        for job in train_at_once([_job(group, data, progress) for group in groups], most, data):
            stage(f"{job.name}: trained")
            logs.end(under_way.pop(job.name))
    except BaseException:
        ending = time.monotonic() + 10
        for log in under_way.values():
            log.close(finished=False, timeout=max(0.0, ending - time.monotonic()))
        raise


@dataclass(frozen=True)
class _Begun:
    training: Training
    settings: RunSettings
    """The training's, with a name of its own for MLflow."""
    log: TrainingLog

    @property
    def name(self) -> str:
        return _name(self.training)


def _begin(training: Training, data: ImageData, fresh: bool, logs: GroupLogs) -> _Begun:
    settings = training.settings
    settings = settings.model_copy(update={"name": f"{settings.name}.group-{training.number}"})
    if fresh and (store := checkpoint_store(settings, data)) is not None:
        store.delete()
    training.directory.mkdir(parents=True, exist_ok=True)
    save_settings(settings, training.directory / SETTINGS_FILE)
    return _Begun(training, settings, logs.open(settings, data, training.directory))


def _job(group: _Begun, data: ImageData, progress: _Progress) -> Job:
    training, of_all = group.training, progress.of(group.training.number)

    def log_and_report(state: TrainingReport) -> None:
        group.log.add(state)
        of_all(replace(state, losses={}))  # of which group they are, one line for all could not say

    store = checkpoint_store(group.settings, data)
    return Job(group.name, group.settings, training.directory, store, log_and_report)


class _Progress:
    """Report the steps of all groups together."""

    def __init__(self, trainings: Sequence[Training], report: Report) -> None:
        self._report, self._total = report, sum(one.settings.training.steps for one in trainings)
        self._steps = {
            one.number: one.settings.training.steps if one.done else max(0, step_of(one.directory / CHECKPOINT_FILE))
            for one in trainings
        }

    def of(self, number: int) -> Callable[[TrainingReport], None]:
        """Return what takes the reports of one group."""

        def report(state: TrainingReport) -> None:
            self._steps[number] = state.step
            self._report(replace(state, step=sum(self._steps.values()), total=self._total))

        return report


@contextlib.contextmanager
def _with_names_of_adapt() -> Iterator[None]:
    """Let errors name the setting that the user has: a group's learning rate is `adapt.lr`."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace("training.lr", "adapt.lr")) from None
