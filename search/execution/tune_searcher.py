"""Connect Ray Tune with the ledger: hand out trials, record their results, and notice failed and overdue ones.

After a short evaluation, a worker would wait for the driver.  With `workers.ahead` it therefore gets a second plan with
each trial, the prefetched one, and begins it by itself while its result travels.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from stepfront.search.config import WorkerSettings
from stepfront.search.execution.placement import worker_count
from stepfront.search.execution.ray_private import actor_of, error_of
from stepfront.search.execution.worker import NOT_TRIED, end_worker, reason_of
from stepfront.search.study.ledger import Asked, Ledger
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluation import Evaluation

OnResult = Callable[[], None]
OnStep = Callable[[], None]

PREFETCH_BELOW = 1.5
"""Seconds per evaluation below which `workers.ahead: auto` prefetches.

Above, waiting for the driver costs a worker a few percent of its time.  A search loses more when it proposes with twice
as many plans in flight (docs/bench-search.md)."""

_LAST = 16
"""Number of results whose median is the time per evaluation; the first of a worker may include compiling."""

_SLOTS_SECONDS = 3.0
"""Seconds for which the cluster's size is taken as known."""


@dataclass(frozen=True)
class Job:
    """What a worker needs to evaluate a trial, apart from its genome."""

    plan_of: Callable[[str], Plan]
    images: int
    noise_seed: int

    def of(self, asked: Asked) -> dict[str, Any]:
        """Return the message that a worker receives for a trial."""
        plan = self.plan_of(asked.genome)
        return {
            "number": asked.number,
            "plan": (plan.times, plan.widths, plan.solver, plan.learnt and plan.learnt.to_json(), plan.marks),
            "images": self.images,
            "noise_seed": self.noise_seed,
        }


class LedgerSearcher(Searcher):
    """The ledger as a search algorithm of Ray Tune.

    It never raises, because an exception in a searcher would end the Tune run.  The first error is kept in `error`, and
    the search ends gracefully.

    A prefetched plan belongs to the worker of the trial that it was handed out with.  When that trial ends, its worker
    is free, and the prefetched plan becomes the next trial.  If another worker gets it, that one evaluates it itself.
    """

    def __init__(self, ledger: Ledger, job: Job, workers: WorkerSettings, on_result: OnResult) -> None:
        super().__init__()
        self._ledger, self._job, self._workers, self._on_result = ledger, job, workers, on_result
        self._running: dict[str, Asked] = {}
        self._prefetched: dict[str, Asked] = {}
        self._pending: deque[Asked] = deque()
        self._seconds: deque[float] = deque(maxlen=_LAST)
        self._slots, self._slots_known = 0, -_SLOTS_SECONDS
        self.error: Exception | None = None

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Accept any properties; the ledger needs none."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the configuration of the next trial; None to wait, FINISHED at the end."""
        if self.error is not None:
            return Searcher.FINISHED
        try:
            if len(self._running) >= self._available_slots():
                return None
            asked = self._next()
            prefetched = self._next() if asked is not None and self._prefetches() else None
        except Exception as error:
            self.error = error
            return Searcher.FINISHED
        if asked is None:
            # A running trial may still fail and be tried again; only without any is the search at its end.
            return None if self._running else Searcher.FINISHED
        self._running[trial_id] = asked
        if prefetched is not None:
            self._prefetched[trial_id] = prefetched
        return {"job": self._job.of(asked), "prefetched": prefetched and self._job.of(prefetched)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Record the result of a trial; failures reach the searcher through `Watch`, which knows the reason."""
        if result is None or "evaluation" not in result:
            return
        evaluation = Evaluation(*result["evaluation"])
        self._seconds.append(evaluation.seconds)
        if trial_id in self._prefetched:
            # To the front: its own worker has begun it, and is the next to be given a trial.
            self._pending.appendleft(self._prefetched.pop(trial_id))
        self._end(trial_id, lambda asked: self._ledger.tell(asked.number, evaluation, result["worker"]))

    def on_trial_lost(self, trial_id: str, reason: str) -> None:
        """Record that a trial will have no result from its worker."""
        if trial_id in self._prefetched:
            self._pending.append(self._prefetched.pop(trial_id))
        if reason == NOT_TRIED and trial_id in self._running:
            self._pending.append(self._running.pop(trial_id))
        self._end(trial_id, lambda asked: self._ledger.fail(asked.number, reason))

    @property
    def in_flight(self) -> list[str]:
        """The ids of the trials that were handed out and have not ended."""
        return list(self._running)

    def _end(self, trial_id: str, record: Callable[[Asked], None]) -> None:
        asked = self._running.pop(trial_id, None)
        if asked is None:
            return
        try:
            record(asked)
            self._on_result()
        except Exception as problem:
            self.error = self.error or problem

    def _next(self) -> Asked | None:
        return self._pending.popleft() if self._pending else self._ledger.ask()

    def _prefetches(self) -> bool:
        slots, remaining = self._available_slots(), self._ledger.remaining
        if remaining is not None and remaining < slots:
            return False  # the last plans of the budget are for workers that are free
        if self._workers.ahead == "auto":
            # With one worker, a search must be the same at every run; and nobody else occupies the driver.
            return slots > 1 and len(self._seconds) > 0 and statistics.median(self._seconds) < PREFETCH_BELOW
        return self._workers.ahead == "always"

    def _available_slots(self) -> int:
        """Return how many trials may be in flight; nodes come and go, so the cluster is queried now and then."""
        if time.monotonic() - self._slots_known >= _SLOTS_SECONDS:
            self._slots, self._slots_known = worker_count(self._workers), time.monotonic()
        return self._slots

    def save(self, checkpoint_path: str) -> None:
        """Write a placeholder: the study holds the state."""
        Path(checkpoint_path).write_text("the state is in the study\n")

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the study holds the state."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher for a restore that never happens


class FirstFree(FIFOScheduler):
    """Give a free worker a new plan, never one whose own worker is still starting.

    Tune's own choice is the oldest pending plan, and it ends that plan's starting worker.  With evaluations that are
    shorter than the start of a process, the slots of a node that joins would never be used.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Return the first pending trial that was not pending at the last call; None when there is none."""
        pending = {trial.trial_id: trial for trial in tune_controller.get_live_trials() if trial.status == "PENDING"}
        new = sorted(pending.keys() - self._seen)
        self._seen = set(pending)  # Tune starts a worker for each of the others at once
        return pending[new[0]] if new else None


class Watch(tune.Callback):
    """Report to the searcher what Tune does not report.

    These are the reason of a failed trial, and a worker that died while it was handed over: Tune drops such a trial
    without a message.  A trial that takes longer than `limit` seconds is reported, too, and its worker is ended.
    """

    def __init__(self, searcher: LedgerSearcher, limit: float, on_step: OnStep) -> None:
        self._searcher, self._limit, self._on_step = searcher, limit, on_step
        self._trials: dict[str, tuple[Any, float]] = {}
        self._seen = 0
        self._overdue: set[str] = set()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Check every trial in flight."""
        now = time.monotonic()
        for trial in trials[self._seen :]:
            self._trials[trial.trial_id] = (trial, now)
        self._seen = len(trials)
        in_flight = self._searcher.in_flight
        for trial_id in in_flight:
            trial, since = self._trials.get(trial_id, (None, now))
            if trial is None:
                continue
            if trial.status == "PENDING":
                self._trials[trial_id] = (trial, now)  # it waits for a slot; its time has not begun
            elif trial.status in ("ERROR", "TERMINATED"):
                self._searcher.on_trial_lost(trial_id, self._reason(trial))
            elif now - since > self._limit and trial_id not in self._overdue:
                self._overdue.add(trial_id)
                end_worker(actor_of(trial))
        self._trials = {trial_id: self._trials[trial_id] for trial_id in in_flight if trial_id in self._trials}
        self._on_step()

    def _reason(self, trial: Any) -> str:
        if trial.trial_id in self._overdue:
            return f"it took longer than {self._limit:.0f} s (workers.limit_minutes)"
        try:
            return reason_of(error_of(trial))
        except Exception:  # no such file, or whatever its content may raise
            return "its worker died"

    def __getstate__(self) -> dict[str, Any]:
        return {}
