"""Score lists of given plans on the cluster, without Tune or a study: baselines and confirmations."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import ray

from stepfront.errors import InputError
from stepfront.search.config import WorkerSettings
from stepfront.search.execution.placement import remote_options, slots_now, worker_count
from stepfront.search.execution.worker import ListWorker, Load, end_worker, overdue, reason_of
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluation import Evaluation


@dataclass(frozen=True)
class _Running:
    """A plan at a worker: its index in the list, the number of the attempt, and its start in monotonic seconds."""

    index: int
    attempt: int
    worker: Any
    since: float


class PlanScorer:
    """Workers that score lists of plans; they start with the first list and end with the context.

    Needs a `ray_session`.  An evaluation that takes longer than `limit` seconds fails.
    """

    def __init__(self, load: Load, workers: WorkerSettings, limit: float) -> None:
        self._workers, self._limit = workers, limit
        self._load = ray.put(load)
        self._actor = ray.remote(**remote_options(workers))(ListWorker)
        self._starting: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._running: dict[Any, _Running] = {}
        self._plans: Sequence[tuple[Plan, int]] = ()
        self._images = 0
        self._pending: list[tuple[int, int]] = []
        self._results: dict[int, Evaluation] = {}
        self._unstarted = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._all():
            end_worker(worker)

    def score(
        self,
        plans: Sequence[tuple[Plan, int]],
        images: int,
        on_result: Callable[[int, int], None] = lambda done, total: None,
        on_score: Callable[[int, Evaluation], None] = lambda index, evaluation: None,
    ) -> list[Evaluation]:
        """Return the evaluations of (plan, noise seed) pairs, in their order, on as many workers as fit.

        As in a search, another worker tries a failed plan again.  After the last attempt, its evaluation has the reason
        of the failure and no score.  `on_score` gets each as it arrives, with its place in the list: what was paid for
        can be kept when the list is interrupted.  Raises InputError when no worker starts, or no node is left.
        """
        self._plans, self._images, self._results = plans, images, {}
        self._pending = [(index, 1) for index in reversed(range(len(plans)))]
        # An actor without a slot on the cluster would never start.
        count = min(worker_count(self._workers), slots_now(self._workers), len(plans))
        for _ in range(count - len(self._all())):
            self._start()
        while len(self._results) < len(plans):
            if self._advance():
                on_score(*next(reversed(self._results.items())))
                on_result(len(self._results), len(plans))
        return [self._results[i] for i in range(len(plans))]

    def _all(self) -> list[Any]:
        return [*self._idle, *self._starting.values(), *(running.worker for running in self._running.values())]

    def _advance(self) -> bool:
        """Wait up to a second for one event; return whether it was a result."""
        self._dispatch()
        ready = ray.wait([*self._running, *self._starting], num_returns=1, timeout=1)[0]
        for future, running in self._running.items():
            if future not in ready and time.monotonic() - running.since > self._limit:
                end_worker(running.worker)  # its future fails at once
        if not ready:
            if not self._running:
                slots_now(self._workers)  # nodes come and go: without any, it waits for one, and says so
            return False
        if ready[0] in self._starting:
            self._started(ready[0])
            return False
        return self._scored(ready[0])

    def _start(self) -> None:
        worker = self._actor.remote(self._load)
        self._starting[worker.ready.remote()] = worker

    def _dispatch(self) -> None:
        # Only to workers that have started: one that waits for a slot must not hold a plan that another could score.
        while self._idle and self._pending:
            index, attempt = self._pending.pop()
            worker, (plan, noise_seed) = self._idle.pop(), self._plans[index]
            future = worker.score.remote(plan, self._images, noise_seed)
            self._running[future] = _Running(index, attempt, worker, time.monotonic())

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
        self._unstarted = 0  # nodes come and go; only failures in a row show that none will start

    def _scored(self, future: Any) -> bool:
        """Return whether there is a result: a failure is one only after the last attempt."""
        running = self._running.pop(future)
        try:
            self._results[running.index] = ray.get(future)
        except ray.exceptions.RayError as error:  # it raised, died, ran out of memory, or was too slow
            end_worker(running.worker)
            self._start()
            late = time.monotonic() - running.since > self._limit
            reason = overdue(self._limit) if late else reason_of(error)
            if running.attempt < self._workers.attempts:
                logging.getLogger("stepfront").warning("a plan is scored again: %s", reason)
                self._pending.append((running.index, running.attempt + 1))
                return False
            seed, nothing = self._plans[running.index][1], float("nan")
            self._results[running.index] = Evaluation(nothing, nothing, nothing, "", self._images, seed, error=reason)
            return True
        self._idle.append(running.worker)
        return True
