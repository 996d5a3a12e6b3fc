"""Train a supernet with several workers on the cluster, by Ray Train.

Ray Train places the workers, connects them, and restarts the group when a worker is lost.  Its own checkpoints are not
used.  The group resumes from the checkpoint file that a training in one process writes, too.  Either can therefore
continue what the other began, and with another number of workers.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import threading
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.util.queue import Empty, Queue

from stepfront.errors import InputError
from stepfront.search.config import RunSettings
from stepfront.search.execution.placement import slots_of_node
from stepfront.search.execution.ray_private import LoopbackTorch
from stepfront.search.execution.ray_session import ray_session
from stepfront.search.training.on_worker import Work, put_images
from stepfront.trainers.data import ImageData
from stepfront.trainers.devices import pick_device
from stepfront.trainers.networks.card import SupernetCard
from stepfront.trainers.training.checkpoints import CheckpointStore
from stepfront.trainers.training.distributed import Group
from stepfront.trainers.training.trainer import Report, begin_training, train_supernet


def train_on_cluster(
    settings: RunSettings, data: ImageData, directory: Path, report: Report, store: CheckpointStore | None = None
) -> SupernetCard:
    """Train as `train_supernet` does, with training.workers workers on the cluster of workers.address.

    Raises InputError as `train_supernet` does, and when workers are lost more often than training.restarts.
    """
    if begin_training(settings, data, directory, store) < settings.training.steps:
        with ray_session(settings.workers):
            _check_slots(settings)
            _run_workers(settings, data, directory, report, store)
    # The last checkpoint exists: the driver computes the losses and saves the weights, on a device of its own.
    return train_supernet(settings, data, directory, report, store, Group(device=pick_device("auto")))


@dataclass(frozen=True)
class Share:
    """What every worker receives."""

    work: Work
    messages: Queue
    """For the driver: reports; an InputError that ends the training; None each time that the workers start."""


def run_worker(share: Share) -> None:
    """Run one process of the group, from the last checkpoint to the last step."""
    try:
        share.messages.qsize()
    except ray.exceptions.RayActorError:
        return  # the driver has stopped at an error, which a restart can't fix
    context = ray.train.get_context()
    group = Group(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    if group.first:
        share.messages.put(None)
    try:
        share.work.train(group, share.messages.put)
    except InputError as error:
        share.messages.put(error)  # a restart would end the same way, so the driver stops
        raise


def _run_workers(
    settings: RunSettings, data: ImageData, directory: Path, report: Report, store: CheckpointStore | None
) -> None:
    messages = Queue(actor_options={"num_cpus": 0})
    share = Share(Work.of(settings, put_images(data), directory, store), messages)
    scratch = tempfile.mkdtemp(prefix="stepfront-train-")
    logging.getLogger("ray.train").setLevel(logging.CRITICAL)
    trainer = _trainer(share, scratch)
    ended: list[BaseException | None] = []

    def fit() -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                trainer.fit()
            ended.append(None)
        except BaseException as error:
            ended.append(error)

    # In a thread of its own, since Ray Train would handle Ctrl-C itself, and reports are needed while it runs.
    threading.Thread(target=fit, name="ray-train", daemon=True).start()
    try:
        _forward_reports(messages, report, ended)
    finally:
        with contextlib.suppress(Exception):
            messages.shutdown(force=True)
        shutil.rmtree(scratch, ignore_errors=True)
    if ended[0] is not None:
        restarts, reason = settings.training.restarts, _reason_of_end(ended[0])
        raise InputError(f"the workers were lost more than {restarts} times: {reason}") from ended[0]


def _trainer(share: Share, scratch: str) -> TorchTrainer:
    settings = share.work.settings
    training, workers, gpus = settings.training, settings.workers, _gpus(settings)
    on_loopback = ray.util.get_node_ip_address() == "127.0.0.1"
    interface = {f"{name}_SOCKET_IFNAME": "lo" for name in ("GLOO", "NCCL")} if on_loopback else {}
    return TorchTrainer(
        partial(run_worker, share),
        torch_config=LoopbackTorch(folder=scratch) if on_loopback else None,
        scaling_config=ScalingConfig(
            num_workers=training.workers,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": workers.cpus} | ({"GPU": gpus} if gpus else {}),
            accelerator_type=workers.accelerator_type if gpus else None,
        ),
        run_config=RunConfig(
            name="training",
            storage_path=scratch,
            failure_config=FailureConfig(max_failures=training.restarts),
            worker_runtime_env={"env_vars": interface},
        ),
    )


def _forward_reports(messages: Queue, report: Report, ended: list[BaseException | None]) -> None:
    """Forward reports until the training has ended and none is left; raises the InputError of a worker."""
    step, started = 0, False
    while True:
        last = bool(ended)
        try:
            message = messages.get(timeout=0.5)
        except Empty:
            if last:
                return
            continue
        if isinstance(message, InputError):
            raise message
        if message is not None:
            step = message.step
            report(message)
        elif started:
            warning = "a worker was lost at about step %d; all resume from the last checkpoint"
            logging.getLogger("stepfront").warning(warning, step)
        else:
            started = True


def _gpus(settings: RunSettings) -> int:
    """Return the GPUs per worker: one when training.device is a GPU, or `auto` and the cluster has enough of them."""
    device = settings.training.device
    if device == "auto":
        return int(ray.cluster_resources().get("GPU", 0) >= settings.training.workers)
    return int(device.startswith("cuda"))


def _check_slots(settings: RunSettings) -> None:
    """Check that the workers fit on the cluster.

    A cluster of several machines may grow, so a warning says that its nodes are waited for.
    Raises InputError when the workers do not fit on this machine.
    """
    each = settings.workers.model_copy(update={"gpus": float(_gpus(settings))})
    slots = sum(slots_of_node(node["Resources"], each) for node in ray.nodes() if node["Alive"])
    if slots >= settings.training.workers:
        return
    room = f"room for {slots} of {each.cpus:g} CPUs and {each.gpus:g} GPUs each"
    if settings.workers.address is None:
        raise InputError(
            f"training.workers {settings.training.workers}: this machine has {room}; lower training.workers or "
            "workers.cpus"
        )
    warning = "training.workers %d: the cluster has %s; waiting for nodes"
    logging.getLogger("stepfront").warning(warning, settings.training.workers, room)


def _reason_of_end(error: BaseException) -> str:
    failures = getattr(error, "worker_failures", {})
    first = next(iter(failures.values()), error)
    return next((line for line in reversed(str(first).strip().splitlines()) if line.strip()), type(first).__name__)
