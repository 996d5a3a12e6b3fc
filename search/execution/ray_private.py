"""Gather what stepfront needs from Ray's private names; pyproject.toml bounds Ray's version because of them.

Each function says why no public name does the same.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray.job_config import JobConfig
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend


def keep_to_loopback() -> None:
    """Make a cluster of one machine listen on 127.0.0.1 alone.

    Ray does so by itself on Windows and macOS.  On Linux it replaces a given 127.0.0.1 by the machine's own address.
    Only this switch prevents that, and it has no public name.
    """
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False


class DriverPath(list[str]):
    """The folders of a driver that its workers import from: those that the driver itself imports from.

    Ray puts the current folder before the standard library of each worker, even where the driver does not look into it.
    A user's own random.py beside the run would then be imported in the place of Python's.
    """

    def extend(self, folders: Iterable[str]) -> None:
        """Add those of `folders` in which the driver looks for modules."""
        known = {os.path.abspath(folder) for folder in sys.path}
        super().extend(folder for folder in folders if os.path.abspath(folder) in known)


def job_config() -> JobConfig:
    """Return the configuration of a job whose workers import from where the driver does; Ray has no public one."""
    config = JobConfig()
    config._py_driver_sys_path = DriverPath()
    return config


def actor_of(trial: Any) -> Any:
    """Return the actor that runs a trial of Ray Tune.

    Tune's public interface can stop a trial, but not a worker that does not respond.
    """
    return trial.temporary_state.ray_actor


def error_of(trial: Any) -> BaseException:
    """Return the exception with which a trial of Ray Tune has just failed; raises when there is none.

    Tune's public `get_pickled_error` looks for the file where Tune copies it later.
    """
    error: BaseException = ray.cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    return error


@dataclass
class LoopbackTorch(TorchConfig):
    """Let the training workers of one machine meet in a file in `folder`.

    The rendezvous of torch, which Ray Train uses otherwise, would listen on all addresses of the machine.
    """

    folder: str = ""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """The backend that Ray Train starts."""
        return _LoopbackBackend


class _LoopbackBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: LoopbackTorch) -> None:
        place = f"file://{backend_config.folder}/{uuid.uuid4().hex}"  # a new file each time that the group starts
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
