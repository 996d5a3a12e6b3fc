"""Score given plans on the cluster, without Tune or a study: baselines and confirmations."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import ray

from stepfront.errors import InputError
from stepfront.search.config import WorkerSettings
from stepfront.search.execution.placement import slots_now, worker_count
from stepfront.search.execution.tune_searcher import end_actor, reason_of
from stepfront.search.execution.worker import ListWorker, Load
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluation import Evaluation


@dataclass(frozen=True)
class _Held:
    """A plan at a worker: its place in the list, how often it has been tried, and since when (monotonic seconds)."""

    index: int
    attempt: int
    worker: Any
    since: float


class PlanScorer:
    """Workers that score one list of plans after the other: they start with the first list and end with the context.

    Needs a `ray_session`.  An evaluation that takes longer than `limit` seconds is ended.
    """

    def __init__(self, load: Load, workers: WorkerSettings, limit: float) -> None:
        self._workers, self._limit = workers, limit
        self._load = ray.put(load)
        self._actor = ray.remote(num_cpus=workers.cpus, num_gpus=workers.gpus)(ListWorker)
        self._starting: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._held: dict[Any, _Held] = {}
        self._plans: Sequence[tuple[Plan, int]] = ()
        self._images = 0
        self._todo: list[tuple[int, int]] = []
        self._results: dict[int, Evaluation] = {}
        self._unstarted = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._all():
            end_actor(worker)

    def score(
        self,
        plans: Sequence[tuple[Plan, int]],
        images: int,
        on_result: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Evaluation]:
        """Evaluations of (plan, noise seed) pairs, in their order, on as many workers as fit.

        As in a search, a plan that fails is tried again by another worker; one that fails for good has its reason for a
        score.  InputError when no worker will start.
        """
        self._plans, self._images, self._results = plans, images, {}
        self._todo = [(index, 1) for index in reversed(range(len(plans)))]
        # An actor that the cluster has no room for would never start.
        count = min(worker_count(self._workers), slots_now(self._workers), len(plans))
        for _ in range(count - len(self._all())):
            self._start()
        while len(self._results) < len(plans):
            if self._advance():
                on_result(len(self._results), len(plans))
        return [self._results[i] for i in range(len(plans))]

    def _all(self) -> list[Any]:
        return [*self._idle, *self._starting.values(), *(held.worker for held in self._held.values())]

    def _advance(self) -> bool:
        """Waits for one event, a second at most; whether it was a result."""
        self._hand_out()
        ready = ray.wait([*self._held, *self._starting], num_returns=1, timeout=1)[0]
        for held in self._held.values():
            if time.monotonic() - held.since > self._limit:
                end_actor(held.worker)  # its future fails at once
        if not ready:
            return False
        if ready[0] in self._starting:
            self._started(ready[0])
            return False
        return self._scored(ready[0])

    def _start(self) -> None:
        worker = self._actor.remote(self._load)
        self._starting[worker.ready.remote()] = worker

    def _hand_out(self) -> None:
        # Only to workers that are there: one that waits for a place must not hold a plan that another could do.
        while self._idle and self._todo:
            index, attempt = self._todo.pop()
            worker, (plan, noise_seed) = self._idle.pop(), self._plans[index]
            future = worker.score.remote(plan, self._images, noise_seed)
            self._held[future] = _Held(index, attempt, worker, time.monotonic())

    def _started(self, future: Any) -> None:
        worker = self._starting.pop(future)
        try:
            ray.get(future)
        except ray.exceptions.RayError as error:
            self._unstarted += 1
            if self._unstarted >= (1 + len(self._all())) * self._workers.attempts:
                raise InputError(f"no worker could be started: {reason_of(error)}") from error
            self._start()
            return
        self._idle.append(worker)
        self._unstarted = 0  # nodes come and go; only a row of failures says that none will start

    def _scored(self, future: Any) -> bool:
        """Whether there is a result: a failure is one only after the last attempt."""
        held = self._held.pop(future)
        try:
            self._results[held.index] = ray.get(future)
        except ray.exceptions.RayError as error:  # it raised, died, ran out of memory, or was too slow
            end_actor(held.worker)
            self._start()
            if held.attempt < self._workers.attempts:
                self._todo.append((held.index, held.attempt + 1))
                return False
            late = time.monotonic() - held.since > self._limit
            reason = f"it took longer than {self._limit:.0f} s" if late else reason_of(error)
            seed, nothing = self._plans[held.index][1], float("nan")
            self._results[held.index] = Evaluation(nothing, nothing, nothing, "", self._images, seed, error=reason)
            return True
        self._idle.append(held.worker)
        return True
