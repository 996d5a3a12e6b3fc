"""Ray Train around the training function: settings and images in; a checkpoint of the last step out.

Ray Train places the workers, connects them and begins the group anew when one is lost.  Its own checkpoints are not
used: what a group goes on from is the one file that a training in one process writes, too, so either can go on with
what the other began, and with another number of workers.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import threading
import time
import uuid
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend
from ray.util.queue import Empty, Queue

from stepfront.errors import InputError
from stepfront.search.config import RunSettings
from stepfront.search.execution.executor import ray_session
from stepfront.search.execution.placement import slots_of_node
from stepfront.trainers.data import ImageData, load_data
from stepfront.trainers.devices import pick_device
from stepfront.trainers.networks.card import SupernetCard
from stepfront.trainers.training.checkpoint_file import CHECKPOINT_FILE
from stepfront.trainers.training.checkpoints import CheckpointStore
from stepfront.trainers.training.distributed import Group
from stepfront.trainers.training.trainer import Report, TrainingReport, begin_training, train_share, train_supernet

REPORT_SECONDS = 1.0
"""How often the first worker says where it is, between checkpoints."""

DECODING_SECONDS = 6 * 3600.0
"""How long workers wait for one whose node has yet to decode its images; for a step they wait for half an hour."""


def train_on_cluster(
    settings: RunSettings, data: ImageData, directory: Path, report: Report, store: CheckpointStore | None = None
) -> SupernetCard:
    """As `train_supernet`, by training.workers workers on the cluster of workers.address.

    Raises InputError as it does, and when the workers were lost more often than training.restarts.
    """
    if begin_training(settings, data, directory, store) < settings.training.steps:
        with ray_session(settings.workers):
            _check_room(settings)
            _run_workers(settings, data, directory, report, store)
    # The last checkpoint is there: what is left is to weigh and to save, on a device that the driver has.
    return train_supernet(settings, data, directory, report, store, Group(device=pick_device("auto")))


@dataclass(frozen=True)
class Share:
    """What a worker is given; `images` lie in Ray's object store, once a node, unless they are mapped from a file: each
    node then maps a file of its own."""

    settings: RunSettings
    images: ray.ObjectRef | None
    directory: Path
    store: CheckpointStore | None
    told: Queue
    """Reports; an InputError that ends the training; None each time that the workers begin."""


def work(share: Share) -> None:
    """A worker: one process of the group, from the last checkpoint to the end of the training."""
    try:
        share.told.qsize()
    except ray.exceptions.RayActorError:
        return  # the driver has stopped listening: what it was told can't be mended by beginning anew
    directory = share.directory
    context = ray.train.get_context()
    group = Group(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    if group.first:
        share.told.put(None)
    with contextlib.ExitStack() as stack:
        try:
            with group.together(DECODING_SECONDS):
                data = load_data(share.settings.data) if share.images is None else ray.get(share.images)
            if share.store is not None:
                # A folder of its own, new each time: nodes need share nothing, and nothing old is met.
                directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stepfront-")))
            elif not (directory / CHECKPOINT_FILE).exists():
                raise InputError(
                    f"{directory} can't be seen from node {ray.util.get_node_ip_address()}; put it on a disk that all "
                    "nodes share, or give training.checkpoints a URI that all reach"
                )
            train_share(share.settings, data, directory, _Reporter(share.told), share.store, group)
        except InputError as error:
            share.told.put(error)  # to begin anew would end the same way: the driver stops at it
            raise


class _Reporter:
    """Sends reports to the driver: those of checkpoints, and in between one a second."""

    def __init__(self, told: Queue) -> None:
        self._told, self._last = told, 0.0

    def __call__(self, report: TrainingReport) -> None:
        if report.saved or time.monotonic() - self._last >= REPORT_SECONDS:
            self._told.put(report)
            self._last = time.monotonic()


def _run_workers(
    settings: RunSettings, data: ImageData, directory: Path, report: Report, store: CheckpointStore | None
) -> None:
    training = settings.training
    told = Queue(actor_options={"num_cpus": 0})
    images = None if isinstance(data.images, np.memmap) else ray.put(data)
    # Workers run in a folder of Ray Train's.
    places = {"path": settings.data.path, "cache": settings.data.cache}
    absolute = {name: place and str(Path(place).absolute()) for name, place in places.items()}
    here = settings.data.model_copy(update=absolute)
    share = Share(settings.model_copy(update={"data": here}), images, directory.absolute(), store, told)
    scratch = tempfile.mkdtemp(prefix="stepfront-train-")
    on_loopback = ray.util.get_node_ip_address() == "127.0.0.1"
    interface = {f"{name}_SOCKET_IFNAME": "lo" for name in ("GLOO", "NCCL")} if on_loopback else {}
    logging.getLogger("ray.train").setLevel(logging.CRITICAL)
    gpus = _gpus(settings)
    trainer = TorchTrainer(
        partial(work, share),
        torch_config=LoopbackTorch(folder=scratch) if on_loopback else None,
        scaling_config=ScalingConfig(
            num_workers=training.workers,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": settings.workers.cpus} | ({"GPU": gpus} if gpus else {}),
        ),
        run_config=RunConfig(
            name="training",
            storage_path=scratch,
            failure_config=FailureConfig(max_failures=training.restarts),
            worker_runtime_env={"env_vars": interface},
        ),
    )
    ended: list[BaseException | None] = []

    def fit() -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                trainer.fit()
            ended.append(None)
        except BaseException as error:
            ended.append(error)

    # In a thread of its own, since Ray Train would take Ctrl-C for itself, and reports are wanted while it runs.
    threading.Thread(target=fit, name="ray-train", daemon=True).start()
    try:
        _pass_on(told, report, ended)
    finally:
        with contextlib.suppress(Exception):
            told.shutdown(force=True)
        shutil.rmtree(scratch, ignore_errors=True)
    if ended[0] is not None:
        raise InputError(f"the workers were lost more than {training.restarts} times: {_why(ended[0])}") from ended[0]


def _pass_on(told: Queue, report: Report, ended: list[BaseException | None]) -> None:
    """Hands reports on until the training has ended and none is left.  Raises the InputError that a worker met."""
    step, begun = 0, False
    while True:
        last = bool(ended)
        try:
            message = told.get(timeout=0.5)
        except Empty:
            if last:
                return
            continue
        if isinstance(message, InputError):
            raise message
        if message is not None:
            step = message.step
            report(message)
        elif begun:
            said = "a worker was lost at about step %d; all go on from the last checkpoint"
            logging.getLogger("stepfront").warning(said, step)
        else:
            begun = True


def _gpus(settings: RunSettings) -> int:
    """GPUs of each worker: one, where training.device asks for it or is `auto` and the cluster has one for each."""
    device = settings.training.device
    if device == "auto":
        return int(ray.cluster_resources().get("GPU", 0) >= settings.training.workers)
    return int(device.startswith("cuda"))


def _check_room(settings: RunSettings) -> None:
    """InputError where a cluster of this machine, which can't grow, has too few places; of another it is said that they
    are waited for."""
    place = settings.workers.model_copy(update={"gpus": float(_gpus(settings))})
    slots = sum(slots_of_node(node["Resources"], place) for node in ray.nodes() if node["Alive"])
    if slots >= settings.training.workers:
        return
    room = f"room for {slots} of {place.cpus:g} CPUs and {place.gpus:g} GPUs each"
    if settings.workers.address is None:
        raise InputError(f"training.workers {settings.training.workers}: this machine has {room}")
    said = "training.workers %d: the cluster has %s; waiting for nodes"
    logging.getLogger("stepfront").warning(said, settings.training.workers, room)


def _why(error: BaseException) -> str:
    failures = getattr(error, "worker_failures", {})
    first = next(iter(failures.values()), error)
    return next((line for line in reversed(str(first).strip().splitlines()) if line.strip()), type(first).__name__)


@dataclass
class LoopbackTorch(TorchConfig):
    """Workers of one machine meet in a file: torch's own meeting place would listen on all of its addresses."""

    folder: str = ""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _LoopbackBackend


class _LoopbackBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: LoopbackTorch) -> None:
        place = f"file://{backend_config.folder}/{uuid.uuid4().hex}"  # a new one each time that the group begins
        worker_group.execute(_set_torch_distributed_env_vars)
        count = len(worker_group)
        started = [
            worker_group.execute_single_async(
                rank,
                _setup_torch_process_group,
                backend=backend_config.backend,
                world_rank=rank,
                world_size=count,
                init_method=place,
                timeout_s=backend_config.timeout_s,
            )
            for rank in range(count)
        ]
        ray.get(started)
