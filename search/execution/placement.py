"""Places for workers: what a worker asks for in; how many fit on the cluster as it is out.  Needs a `ray_session`."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping

import ray

from stepfront.errors import InputError
from stepfront.search.config import WorkerSettings

PATIENCE = 1200.0
"""Seconds for which a cluster without a fitting node is waited for: a cloud takes minutes for a machine."""


def worker_count(workers: WorkerSettings) -> int:
    """As many workers as the settings say, or as fit on the cluster now; one at least, for nodes that are to come."""
    return workers.count if workers.count is not None else max(1, _slots(workers))


def slots_now(workers: WorkerSettings) -> int:
    """How many workers fit on the cluster as it is.  A cluster of several machines may grow from none, so its first
    node is waited for.  InputError when not one worker fits."""
    slots = _slots(workers) or (_first_slots(workers) if workers.address else 0)
    if slots < 1:
        resources = ray.cluster_resources()
        asked = f"{workers.cpus:g} CPUs and {workers.gpus:g} GPUs"
        there = f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"
        raise InputError(f"a worker asks for {asked}; the cluster has {there}")
    return slots


def _first_slots(workers: WorkerSettings, patience: float = PATIENCE) -> int:
    """The slots of the first nodes that come within `patience` seconds; an autoscaler is told what is wanted."""
    from ray.autoscaler.sdk import request_resources

    said = "no node has room for a worker (%g CPUs, %g GPUs); waiting up to %.0f minutes for one"
    logging.getLogger("stepfront").warning(said, workers.cpus, workers.gpus, patience / 60)
    wanted = {"CPU": math.ceil(workers.cpus), "GPU": math.ceil(workers.gpus)}
    request_resources(bundles=[{kind: count for kind, count in wanted.items() if count}])
    until = time.monotonic() + patience
    while not (slots := _slots(workers)) and time.monotonic() < until:
        time.sleep(2)
    request_resources(bundles=[])  # from here on, trials themselves are what is wanted
    return slots


def _slots(workers: WorkerSettings) -> int:
    return sum(slots_of_node(node["Resources"], workers) for node in ray.nodes() if node["Alive"])


def slots_of_node(resources: Mapping[str, float], workers: WorkerSettings) -> int:
    """How many workers fit on one machine: what is left over on two of them makes no place, nor on two GPUs."""

    def times(part: float, whole: float) -> int:
        return int(whole / part + 1e-9)

    slots, gpus = times(workers.cpus, resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if not workers.gpus:
        return slots
    return min(slots, gpus * times(workers.gpus, 1) if workers.gpus < 1 else times(workers.gpus, gpus))
