"""Between Ray Tune and the ledger: Tune asks for trials here and tells their results; which free worker takes which
plan, why a trial failed, and that one takes too long.

A worker of a short evaluation would wait for the driver after each one, so it is handed the plan after the next ahead
of time (`workers.ahead`): it goes on by itself, and the driver has a whole evaluation to think about the one after.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from stepfront.search.config import WorkerSettings
from stepfront.search.execution.placement import worker_count
from stepfront.search.execution.worker import NOT_TRIED, EvaluationError
from stepfront.search.study.ledger import Asked, Ledger
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluation import Evaluation

OnResult = Callable[[], None]
OnStep = Callable[[], None]

AHEAD_BELOW = 1.5
"""Seconds of an evaluation above which waiting for the driver costs a worker a few percent of its time at most: less
than what it costs a search to propose with twice as many plans under way (docs/bench-search.md)."""

_LAST = 16
"""Results whose median says how long an evaluation takes; the first of a worker may include compiling."""

_SLOTS_FOR = 3.0
"""Seconds for which the cluster's size is taken as known."""


@dataclass(frozen=True)
class Job:
    """What a worker needs to know of a trial beside the plan."""

    plan_of: Callable[[str], Plan]
    images: int
    noise_seed: int

    def of(self, asked: Asked) -> dict[str, Any]:
        """What travels to a worker."""
        plan = self.plan_of(asked.genome)
        return {
            "number": asked.number,
            "plan": (plan.times, plan.widths, plan.solver),
            "images": self.images,
            "noise_seed": self.noise_seed,
        }


class LedgerSearcher(Searcher):
    """Tune's view of the ledger.  It never raises: an exception in a searcher would end the whole Tune run.  What went
    wrong is kept in `error`, and the search is ended in order.

    A plan that is handed ahead is asked of the ledger and promised to the worker of the trial that it came with.  When
    that trial ends, its worker is free and the next trial is the promised one.  If another worker should get it after
    all, it evaluates the plan itself.
    """

    def __init__(self, ledger: Ledger, job: Job, workers: WorkerSettings, on_result: OnResult) -> None:
        super().__init__()
        self._ledger, self._job, self._workers, self._on_result = ledger, job, workers, on_result
        self._asked: dict[str, Asked] = {}
        self._promised: dict[str, Asked] = {}
        self._due: deque[Asked] = deque()
        self._seconds: deque[float] = deque(maxlen=_LAST)
        self._slots, self._slots_known = 0, -_SLOTS_FOR
        self.error: Exception | None = None

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self.error is not None:
            return Searcher.FINISHED
        try:
            if len(self._asked) >= self._places():
                return None
            asked = self._next()
            ahead = self._next() if asked is not None and self._hands_ahead() else None
        except Exception as error:
            self.error = error
            return Searcher.FINISHED
        if asked is None:
            # A worker may still fail and its trial wait again; only with nothing in flight is there nothing to come.
            return None if self._asked else Searcher.FINISHED
        self._asked[trial_id] = asked
        if ahead is not None:
            self._promised[trial_id] = ahead
        return {"job": self._job.of(asked), "ahead": ahead and self._job.of(ahead)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if result is None or "evaluation" not in result:
            return  # the watch knows why, and says so
        evaluation = Evaluation(*result["evaluation"])
        self._seconds.append(evaluation.seconds)
        if trial_id in self._promised:
            # To the front: its own worker has begun it, and is the next to be given a trial.
            self._due.appendleft(self._promised.pop(trial_id))
        self._end(trial_id, lambda asked: self._ledger.tell(asked.number, evaluation, result["worker"]))

    def lost(self, trial_id: str, reason: str) -> None:
        """A trial that will never have a result from this worker."""
        if trial_id in self._promised:
            self._due.append(self._promised.pop(trial_id))
        if reason == NOT_TRIED and trial_id in self._asked:
            self._due.append(self._asked.pop(trial_id))
        self._end(trial_id, lambda asked: self._ledger.fail(asked.number, reason))

    @property
    def in_flight(self) -> list[str]:
        """Ids of the trials that were asked and not yet ended."""
        return list(self._asked)

    def _end(self, trial_id: str, say: Callable[[Asked], None]) -> None:
        asked = self._asked.pop(trial_id, None)
        if asked is None:
            return
        try:
            say(asked)
            self._on_result()
        except Exception as problem:
            self.error = self.error or problem

    def _next(self) -> Asked | None:
        return self._due.popleft() if self._due else self._ledger.ask()

    def _hands_ahead(self) -> bool:
        places, left = self._places(), self._ledger.remaining
        if left is not None and left < places:
            return False  # these are for workers that are free
        if self._workers.ahead == "auto":
            # Of one worker a search is the same at every run; and it has nobody to share the driver with.
            return places > 1 and len(self._seconds) > 0 and statistics.median(self._seconds) < AHEAD_BELOW
        return self._workers.ahead == "always"

    def _places(self) -> int:
        """How many trials may be in flight; nodes come and go, so the cluster is asked now and then."""
        if time.monotonic() - self._slots_known >= _SLOTS_FOR:
            self._slots, self._slots_known = worker_count(self._workers), time.monotonic()
        return self._slots

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_text("the study is the truth\n")

    def restore(self, checkpoint_path: str) -> None:
        return

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher for a restore that never happens


class FirstFree(FIFOScheduler):
    """Hands a worker that is free a plan that is new, never one whose own worker is still starting.

    Tune's own choice is the first plan that waits, and it ends that plan's worker for it: with evaluations shorter than
    the start of a process, the places of a node that joins would never be taken.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        waiting = {trial.trial_id: trial for trial in tune_controller.get_live_trials() if trial.status == "PENDING"}
        new = sorted(waiting.keys() - self._seen)
        self._seen = set(waiting)  # Tune starts a worker for each of the others at once
        return waiting[new[0]] if new else None


class Watch(tune.Callback):
    """Tells the searcher what Tune does not: why a trial failed, that one's worker died while it was handed over (Tune
    drops such a trial in silence), and that one takes too long, whose worker it ends."""

    def __init__(self, searcher: LedgerSearcher, limit: float, on_step: OnStep) -> None:
        self._searcher, self._limit, self._on_step = searcher, limit, on_step
        self._trials: dict[str, tuple[Any, float]] = {}
        self._seen = 0
        self._overdue: set[str] = set()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
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
                self._trials[trial_id] = (trial, now)  # it waits for a place; its time has not begun
            elif trial.status in ("ERROR", "TERMINATED"):
                self._searcher.lost(trial_id, self._reason(trial))
            elif now - since > self._limit and trial_id not in self._overdue:
                self._overdue.add(trial_id)
                end_actor(trial.temporary_state.ray_actor)
        self._trials = {trial_id: self._trials[trial_id] for trial_id in in_flight if trial_id in self._trials}
        self._on_step()

    def _reason(self, trial: Any) -> str:
        if trial.trial_id in self._overdue:
            return f"it took longer than {self._limit:.0f} s (workers.limit_minutes)"
        try:
            # As Tune wrote it just now; `get_pickled_error` looks where it is copied later.
            return reason_of(ray.cloudpickle.loads(Path(trial.pickled_error_file).read_bytes()))
        except Exception:  # no such file, or whatever its content may raise
            return "its worker died"

    def __getstate__(self) -> dict[str, Any]:
        return {}


def reason_of(error: BaseException | None) -> str:
    """Why an evaluation failed, in a few words."""
    if isinstance(error, ray.exceptions.RayTaskError):
        cause = error.cause if error.cause is not None else error
        return str(cause) if isinstance(cause, EvaluationError) else f"{type(cause).__name__}: {cause}"[:300]
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return "its worker ran out of memory"
    said = str(error)
    if "memory" in said and "killed" in said:
        return "its worker ran out of memory"
    if "node" in said and ("died" in said or "dead" in said):
        return "its worker died, or the node that it ran on"
    return "its worker died"


def end_actor(actor: Any) -> None:
    """Ends a worker at once."""
    with contextlib.suppress(Exception):  # it may be gone already
        ray.kill(actor)
