"""Plans that are known beforehand, as controls and confirmations are, scored on the cluster without Tune or a study."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import ray

from search.config import WorkerSettings
from search.placement import slots_now, worker_count
from search.searcher import end_actor, reason_of
from search.worker import ListWorker, Load
from trainers.errors import InputError
from trainers.evaluation import Evaluation
from trainers.plan import Plan


def score_plans(
    plans: Sequence[tuple[Plan, int]],
    images: int,
    load: Load,
    workers: WorkerSettings,
    limit: float,
    on_result: Callable[[int, int], None] = lambda done, total: None,
) -> list[Evaluation]:
    """Evaluations of (plan, noise seed) pairs, in their order, on as many workers as fit.  Needs a `ray_session`.

    As in a search, a plan that fails is tried again by another worker; one that fails for good has its reason for a
    score.
    """
    shared = ray.put(load)
    actor = ray.remote(num_cpus=workers.cpus, num_gpus=workers.gpus)(ListWorker)
    # An actor that the cluster has no room for would hold its plan for ever.
    count = min(worker_count(workers), slots_now(workers), len(plans))
    idle: list[Any] = []
    starting: dict[Any, Any] = {}
    waiting: dict[Any, tuple[int, int, Any, float]] = {}
    todo = [(index, 1) for index in reversed(range(len(plans)))]
    results: dict[int, Evaluation] = {}
    unstarted = 0

    def start() -> None:
        worker = actor.remote(shared)
        starting[worker.ready.remote()] = worker

    for _ in range(count):
        start()
    try:
        while len(results) < len(plans):
            # Only to workers that are there: one that waits for a place must not hold a plan that another could do.
            while idle and todo:
                index, attempt = todo.pop()
                worker, (plan, noise_seed) = idle.pop(), plans[index]
                waiting[worker.score.remote(plan, images, noise_seed)] = (index, attempt, worker, time.monotonic())
            ready = ray.wait([*waiting, *starting], num_returns=1, timeout=1)[0]
            for _, _, worker, since in waiting.values():
                if time.monotonic() - since > limit:
                    end_actor(worker)  # its future fails at once
            if not ready:
                continue
            (future,) = ready
            if future in starting:
                worker = starting.pop(future)
                try:
                    ray.get(future)
                    idle.append(worker)
                    unstarted = 0  # nodes come and go; only a row of failures says that none will start
                except ray.exceptions.RayError as error:
                    unstarted += 1
                    if unstarted >= count * workers.attempts:
                        raise InputError(f"no worker could be started: {reason_of(error)}") from error
                    start()
                continue
            index, attempt, worker, since = waiting.pop(future)
            try:
                results[index] = ray.get(future)
                idle.append(worker)
            except ray.exceptions.RayError as error:  # it raised, died, ran out of memory, or was too slow
                end_actor(worker)
                start()
                if attempt < workers.attempts:
                    todo.append((index, attempt + 1))
                    continue
                late = time.monotonic() - since > limit
                reason = f"it took longer than {limit:.0f} s" if late else reason_of(error)
                nothing = float("nan")
                results[index] = Evaluation(nothing, nothing, nothing, "", images, plans[index][1], error=reason)
            on_result(len(results), len(plans))
    finally:
        for worker in [*idle, *starting.values(), *(held[2] for held in waiting.values())]:
            end_actor(worker)
    return [results[i] for i in range(len(plans))]
