"""Take the steps of a training on a worker: read its images, work in its folder, and report to the driver."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ray
import torch
from ray.util.queue import Queue

from stepfront.errors import InputError
from stepfront.search.config import RunSettings
from stepfront.trainers.data import ImageData
from stepfront.trainers.devices import pick_device
from stepfront.trainers.latents.load_images import load_images
from stepfront.trainers.training.checkpoint_file import CHECKPOINT_FILE
from stepfront.trainers.training.checkpoints import CheckpointStore
from stepfront.trainers.training.distributed import Group
from stepfront.trainers.training.trainer import TrainingReport, train_share

DECODING_SECONDS = 6 * 3600.0
"""Seconds for which workers wait for one whose node still decodes its images; for a step they wait half an hour."""

REPORT_SECONDS = 1.0
"""Seconds between reports of a worker, apart from those of checkpoints."""


class _Reporter:
    """Sends the driver the reports of checkpoints, and one per second in between."""

    def __init__(self, send: Callable[[TrainingReport], object]) -> None:
        self._send, self._last = send, 0.0

    def __call__(self, report: TrainingReport) -> None:
        if report.saved or time.monotonic() - self._last >= REPORT_SECONDS:
            self._send(report)
            self._last = time.monotonic()


@dataclass(frozen=True)
class Work:
    """A training as a worker receives it; `folder` is the one that the driver works in."""

    settings: RunSettings
    images: ray.ObjectRef | None
    """None: every node maps a file of its own."""
    directory: Path
    folder: Path
    store: CheckpointStore | None

    @staticmethod
    def of(settings: RunSettings, images: ray.ObjectRef | None, directory: Path, store: CheckpointStore | None) -> Work:
        """Return the training in `directory`, with paths that mean the same on a worker."""
        return Work(_with_absolute_paths(settings), images, directory.absolute(), Path.cwd(), store)

    def train(self, group: Group, send: Callable[[TrainingReport], object]) -> None:
        """Take the steps of one process of the group, from the last checkpoint to the last step."""
        with _in_folder_of_driver(self.folder):
            with group.together(DECODING_SECONDS):
                data = load_images(self.settings.data) if self.images is None else ray.get(self.images)
            with _folder_on_worker(self.directory, self.store) as directory:
                train_share(self.settings, data, directory, _Reporter(send), self.store, group)


@dataclass(frozen=True)
class TrainingTask:
    """One of several trainings at once, as a worker receives it; `messages` are for the driver."""

    number: int
    work: Work
    gpus: bool
    messages: Queue


def train_task(task: TrainingTask) -> None:
    """Take the steps of one training, on a worker."""
    torch.set_num_threads(max(1, int(task.work.settings.workers.cpus)))
    group = Group(device=pick_device("cuda" if task.gpus else "cpu"))
    task.work.train(group, lambda state: task.messages.put((task.number, state)))


def put_images(data: ImageData) -> ray.ObjectRef | None:
    """Put the images into Ray's object store, once per node; None where they are mapped from a file.

    Each node then maps a file of its own.
    """
    return None if data.is_mapped else ray.put(data)


def _with_absolute_paths(settings: RunSettings) -> RunSettings:
    """Return the settings with paths of the data that mean the same on a worker, which runs in another folder."""
    places = {name: getattr(settings.data, name) for name in ("path", "cache", "autoencoder")}
    absolute = {name: place and str(Path(place).absolute()) for name, place in places.items()}
    return settings.model_copy(update={"data": settings.data.model_copy(update=absolute)})


@contextlib.contextmanager
def _folder_on_worker(directory: Path, store: CheckpointStore | None) -> Iterator[Path]:
    """Yield the folder to train in: the driver's, or with a store one of its own.

    Raises InputError where the worker's node does not see the driver's.
    """
    if store is not None:
        # A new folder at every start: nodes need no shared disk, and no old file is found.
        with tempfile.TemporaryDirectory(prefix="stepfront-") as own:
            yield Path(own)
        return
    if not (directory / CHECKPOINT_FILE).exists():
        raise InputError(
            f"{directory} is not visible from node {ray.util.get_node_ip_address()}; put it on a disk that all "
            "nodes share, or set training.checkpoints to a URI that all nodes reach"
        )
    yield directory


def _in_folder_of_driver(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Work in the driver's folder, where this node has it: `training.teacher` may be relative to it.

    Made absolute, it would be another setting, and the checkpoint that of another training.
    """
    return contextlib.chdir(folder) if folder.is_dir() else contextlib.nullcontext()
