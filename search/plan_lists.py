"""Plans that are known beforehand, as controls and confirmations are, scored on the cluster without Tune or a study."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray

from search.config import WorkerSettings
from search.executor import end_actor, reason_of
from search.placement import slots_now, worker_count
from search.worker import ListWorker, Load
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
    idle, ready_at = [], {}

    def start() -> None:
        worker = actor.remote(shared)
        idle.append(worker)
        ready_at[worker] = worker.ready.remote()

    for _ in range(count):
        start()
    todo = [(index, 1) for index in reversed(range(len(plans)))]
    waiting: dict[Any, tuple[int, int, Any]] = {}
    since: dict[Any, float] = {}
    results: dict[int, Evaluation] = {}
    try:
        while len(results) < len(plans):
            while idle and todo:
                index, attempt = todo.pop()
                worker, (plan, noise_seed) = idle.pop(), plans[index]
                future = worker.score.remote(plan, images, noise_seed)
                waiting[future] = (index, attempt, worker)
            ready = ray.wait(list(waiting), num_returns=1, timeout=1)[0]
            for future, (_, _, worker) in waiting.items():
                # The clock starts with the evaluation: a worker may have to wait for a place, and to load its parts.
                if future not in since and ray.wait([ready_at[worker]], timeout=0)[0]:
                    since[future] = time.monotonic()
                if time.monotonic() - since.get(future, math.inf) > limit:
                    end_actor(worker)  # its future fails at once
            if not ready:
                continue
            index, attempt, worker = waiting.pop(ready[0])
            try:
                results[index] = ray.get(ready[0])
                idle.append(worker)
            except ray.exceptions.RayError as error:  # it raised, died, ran out of memory, or was too slow
                end_actor(worker)
                start()
                if attempt < workers.attempts:
                    todo.append((index, attempt + 1))
                    continue
                late = time.monotonic() - since.get(ready[0], math.inf) > limit
                reason = f"it took longer than {limit:.0f} s" if late else reason_of(error)
                nothing = float("nan")
                results[index] = Evaluation(nothing, nothing, nothing, "", images, plans[index][1], error=reason)
            on_result(len(results), len(plans))
    finally:
        for worker in [*idle, *(held[2] for held in waiting.values())]:
            end_actor(worker)
    return [results[i] for i in range(len(plans))]
