"""Count the slots for workers on the cluster: how many workers fit, by the resources that each needs.

Everything here needs a `ray_session`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping

import ray

from stepfront.errors import InputError
from stepfront.search.config import WorkerSettings

PATIENCE = 1200.0
"""Seconds to wait for the first node with a free slot: a cloud takes minutes to start a machine."""


def worker_count(workers: WorkerSettings) -> int:
    """Return the number of workers in the settings, or how many fit on the cluster now, at least one."""
    return workers.count if workers.count is not None else max(1, _slots(workers))


def slots_now(workers: WorkerSettings) -> int:
    """Return how many workers fit on the cluster now.

    A cluster of several machines may start without nodes, so its first node is waited for.
    Raises InputError when no worker fits.
    """
    slots = _slots(workers) or (_first_slots(workers) if workers.address else 0)
    if slots < 1:
        resources = ray.cluster_resources()
        needed = f"{workers.cpus:g} CPUs and {workers.gpus:g} GPUs"
        total = f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"
        raise InputError(
            f"a worker needs {needed} on one machine; the cluster has {total}; lower workers.cpus or workers.gpus"
        )
    return slots


def _first_slots(workers: WorkerSettings, patience: float = PATIENCE) -> int:
    """Ask the autoscaler for a node, wait up to `patience` seconds, and return the slots of the first nodes."""
    from ray.autoscaler.sdk import request_resources

    warning = "no node has room for a worker (%g CPUs, %g GPUs); waiting up to %.0f minutes for one"
    logging.getLogger("stepfront").warning(warning, workers.cpus, workers.gpus, patience / 60)
    needs = {"CPU": math.ceil(workers.cpus), "GPU": math.ceil(workers.gpus)}
    request_resources(bundles=[{kind: count for kind, count in needs.items() if count}])
    until = time.monotonic() + patience
    while not (slots := _slots(workers)) and time.monotonic() < until:
        time.sleep(2)
    request_resources(bundles=[])  # from here on, pending trials ask for nodes
    return slots


def _slots(workers: WorkerSettings) -> int:
    return sum(slots_of_node(node["Resources"], workers) for node in ray.nodes() if node["Alive"])


def slots_of_node(resources: Mapping[str, float], workers: WorkerSettings) -> int:
    """Return how many workers fit on one machine; a worker can't span two machines, nor a share of a GPU two GPUs."""

    def times(part: float, total: float) -> int:
        return int(total / part + 1e-9)

    slots, gpus = times(workers.cpus, resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if not workers.gpus:
        return slots
    return min(slots, gpus * times(workers.gpus, 1) if workers.gpus < 1 else times(workers.gpus, gpus))
