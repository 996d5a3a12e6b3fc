"""Run several trainings at once, each as a Ray task, from checkpoint to checkpoint.

A task takes the steps of one training, with `workers.cpus` threads; the driver sets up and saves.  A training therefore
ends with the weights that one process computes on as many threads.  A task whose worker is lost is begun again at the
last checkpoint, up to `training.restarts` times.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
import torch
from ray.util.queue import Queue

from stepfront.errors import InputError
from stepfront.search.config import RunSettings, WorkerSettings
from stepfront.search.execution.placement import remote_options, slots_now, slots_of_node
from stepfront.search.execution.ray_session import ray_session
from stepfront.search.execution.worker import reason_of
from stepfront.search.training.on_worker import TrainingTask, Work, put_images, train_task
from stepfront.trainers.data import ImageData
from stepfront.trainers.devices import pick_device
from stepfront.trainers.training.checkpoints import CheckpointStore
from stepfront.trainers.training.distributed import Group
from stepfront.trainers.training.trainer import Report, begin_training, train_supernet

POLL_SECONDS = 0.3
"""Seconds between two looks at what the workers report."""


@dataclass(frozen=True)
class Job:
    """One training of several; messages call it `name`."""

    name: str
    settings: RunSettings
    directory: Path
    store: CheckpointStore | None
    report: Report


def trainings_at_once(settings: RunSettings, count: int) -> int:
    """Return how many of `count` trainings run at once: `workers.count`, or as many as there is room for.

    A training whose batches several workers share runs alone.  So do all on a machine of which they would leave more
    than half of the processors idle: one after the other, each uses them all.
    """
    workers = settings.workers
    if settings.training.workers > 1:
        return 1
    if workers.count is not None or workers.address is not None:
        return min(count, workers.count or count)
    here = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
    found = max(1, min(count, slots_of_node(here, _placed(settings, here["GPU"]))))
    return found if here["GPU"] or 2 * found * workers.cpus >= here["CPU"] else 1


def train_at_once(jobs: Sequence[Job], most: int, data: ImageData) -> Iterator[Job]:
    """Train all jobs, up to `most` at once, and yield each as soon as its supernet is saved.

    Raises InputError that names the job where one of them fails; the others stop at their last checkpoints.
    """
    with ray_session(jobs[0].settings.workers):
        run = _Run(jobs, most, data)
        try:
            for job in run.ended():
                with named(job.name):
                    # The driver computes the losses and saves the weights of the last checkpoint.
                    group = Group(device=pick_device("auto"))
                    train_supernet(job.settings, data, job.directory, job.report, job.store, group)
                yield job
        finally:
            run.stop()


@contextlib.contextmanager
def named(name: str) -> Iterator[None]:
    """Let an InputError begin with the name of the training that raised it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


class _Run:
    """The tasks of several trainings, and what is known of them."""

    def __init__(self, jobs: Sequence[Job], most: int, data: ImageData) -> None:
        self._jobs, self._most, self._data = jobs, most, data
        workers = _placed(jobs[0].settings, ray.cluster_resources().get("GPU", 0.0))
        slots_now(workers)  # refuses workers that could never start
        # A lost worker is noticed here, so that its losses are counted and reported.
        self._remote = ray.remote(**remote_options(workers), max_retries=0)(train_task)
        self._gpus = workers.gpus > 0
        self._images = put_images(data)
        self._messages = Queue(actor_options={"num_cpus": 0})
        self._running: dict[ray.ObjectRef, int] = {}
        self._losses, self._steps = dict.fromkeys(range(len(jobs)), 0), dict.fromkeys(range(len(jobs)), 0)

    def ended(self) -> Iterator[Job]:
        """Yield the jobs whose last checkpoint exists; raise InputError where one fails."""
        waiting = list(range(len(self._jobs)))
        while waiting or self._running:
            while waiting and len(self._running) < self._most:
                number = waiting.pop(0)
                if self._begin(number) == self._jobs[number].settings.training.steps:
                    yield self._jobs[number]
                else:
                    self._start(number)
            ready, _ = ray.wait(list(self._running), timeout=POLL_SECONDS) if self._running else ([], [])
            self._forward_reports()
            for done in ready:
                number = self._running.pop(done)
                if self._finished(done, number):
                    yield self._jobs[number]
                else:
                    self._start(number)

    def stop(self) -> None:
        """End what still runs."""
        for task in self._running:
            with contextlib.suppress(Exception):
                ray.cancel(task, force=True)
        with contextlib.suppress(Exception):
            self._messages.shutdown(force=True)

    def _begin(self, number: int) -> int:
        job = self._jobs[number]
        with named(job.name):
            self._steps[number] = begin_training(job.settings, self._data, job.directory, job.store)
        return self._steps[number]

    def _start(self, number: int) -> None:
        job = self._jobs[number]
        work = Work.of(job.settings, self._images, job.directory, job.store)
        self._running[self._remote.remote(TrainingTask(number, work, self._gpus, self._messages))] = number

    def _forward_reports(self) -> None:
        for number, state in self._messages.get_nowait_batch(self._messages.qsize()):
            self._steps[number] = state.step
            self._jobs[number].report(state)

    def _finished(self, done: ray.ObjectRef, number: int) -> bool:
        """Return whether a task came to its end; False where its worker was lost and it may try again."""
        job = self._jobs[number]
        try:
            ray.get(done)
        except ray.exceptions.RayTaskError as error:
            reason = str(error.cause) if isinstance(error.cause, InputError) else reason_of(error)
            raise InputError(f"{job.name}: {reason}") from None
        except ray.exceptions.RayError as error:
            self._losses[number] += 1
            if self._losses[number] > (restarts := job.settings.training.restarts):
                raise InputError(f"{job.name}: {reason_of(error)}, more than {restarts} times") from None
            warning = "%s: %s at about step %d; it continues at its last checkpoint"
            logging.getLogger("stepfront").warning(warning, job.name, reason_of(error), self._steps[number])
            return False
        return True


def _placed(settings: RunSettings, gpus: float) -> WorkerSettings:
    """Return what a worker of a training takes: a GPU, or the share in `workers.gpus`, where the training is on one."""
    device, workers = settings.training.device, settings.workers
    needs = device.startswith("cuda") or (device == "auto" and gpus > 0)
    changes = {"gpus": workers.gpus or 1.0} if needs else {"gpus": 0.0, "accelerator_type": None}
    return workers.model_copy(update=changes)
