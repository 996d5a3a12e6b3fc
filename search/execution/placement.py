"""Count the slots for workers on the cluster: how many workers fit, by the resources that each needs.

Everything here needs a `ray_session`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from typing import Any

import ray

from stepfront.errors import InputError
from stepfront.search.config import WorkerSettings

PATIENCE = 1200.0
"""Seconds to wait for the first node with a free slot: a cloud takes minutes to start a machine."""

SLOTS_SECONDS = 3.0
"""Seconds for which the cluster's size is taken as known."""

TYPE_SHARE = 0.001
"""What Ray itself asks of a node's resource `accelerator_type:NAME` (of which it has 1) for a task of this type."""


def remote_options(workers: WorkerSettings) -> dict[str, Any]:
    """Return the options with which `ray.remote` places a worker."""
    kind = {"accelerator_type": workers.accelerator_type} if workers.accelerator_type else {}
    return {"num_cpus": workers.cpus, "num_gpus": workers.gpus} | kind


def worker_resources(workers: WorkerSettings) -> dict[str, float]:
    """Return the resources of a worker by Ray's names, as a placement group takes them."""
    kind = {_type_resource(workers): TYPE_SHARE} if workers.accelerator_type else {}
    return {"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {}) | kind


def _type_resource(workers: WorkerSettings) -> str:
    return f"accelerator_type:{workers.accelerator_type}"


def worker_count(workers: WorkerSettings) -> int:
    """Return the number of workers in the settings, or how many fit on the cluster now, at least one."""
    return workers.count if workers.count is not None else max(1, _slots(workers))


class WorkerCount:
    """The number of workers, counted again where it is older than `SLOTS_SECONDS`: nodes come and go."""

    def __init__(self, workers: WorkerSettings) -> None:
        self._workers = workers
        self._count, self._counted = 0, -SLOTS_SECONDS

    def __call__(self) -> int:
        """Return the number of workers."""
        if time.monotonic() - self._counted >= SLOTS_SECONDS:
            self._count, self._counted = worker_count(self._workers), time.monotonic()
        return self._count


def slots_now(workers: WorkerSettings) -> int:
    """Return how many workers fit on the cluster now.

    A cluster of several machines may start without nodes, so its first node is waited for.
    Raises InputError when no worker fits.
    """
    slots = _slots(workers) or (_first_slots(workers) if workers.address else 0)
    if slots < 1:
        raise InputError(_no_room(workers, ray.cluster_resources()))
    return slots


def _no_room(workers: WorkerSettings, resources: Mapping[str, float]) -> str:
    needed = f"{workers.cpus:g} CPUs and {workers.gpus:g} GPUs"
    total = f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"
    kind = workers.accelerator_type
    if kind and _type_resource(workers) not in resources:
        types = sorted(name.partition(":")[2] for name in resources if name.startswith("accelerator_type:"))
        known = ", ".join(types) or "none"
        return f"workers.accelerator_type {kind}: no machine of the cluster has that type; there: {known}"
    on = f" with {kind}" if kind else ""
    return f"a worker needs {needed} on one machine{on}; the cluster has {total}; lower workers.cpus or workers.gpus"


def _first_slots(workers: WorkerSettings, patience: float = PATIENCE) -> int:
    """Ask the autoscaler for a node, wait up to `patience` seconds, and return the slots of the first nodes."""
    from ray.autoscaler.sdk import request_resources

    warning = "no node has room for a worker (%g CPUs, %g GPUs); waiting up to %.0f minutes for one"
    logging.getLogger("stepfront").warning(warning, workers.cpus, workers.gpus, patience / 60)
    wanted = {
        kind: count if count == TYPE_SHARE else math.ceil(count) for kind, count in worker_resources(workers).items()
    }
    request_resources(bundles=[wanted])
    until = time.monotonic() + patience
    try:
        while not (slots := _slots(workers)) and time.monotonic() < until:
            time.sleep(2)
    finally:
        request_resources(bundles=[])  # from here on, pending trials ask for nodes
    return slots


def _slots(workers: WorkerSettings) -> int:
    return sum(slots_of_node(node["Resources"], workers) for node in ray.nodes() if node["Alive"])


def slots_of_node(resources: Mapping[str, float], workers: WorkerSettings) -> int:
    """Return how many workers fit on one machine, none where its GPUs are of another type.

    A worker can't span two machines, nor a share of a GPU two GPUs.
    """

    def times(part: float, total: float) -> int:
        return int(total / part + 1e-9)

    slots, gpus = times(workers.cpus, resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if not workers.gpus:
        return slots
    if workers.accelerator_type and _type_resource(workers) not in resources:
        return 0
    return min(slots, gpus * times(workers.gpus, 1) if workers.gpus < 1 else times(workers.gpus, gpus))
