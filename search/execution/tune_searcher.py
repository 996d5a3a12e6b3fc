"""Connect Ray Tune with the ledger: hand out packets of trials, record their results, notice failed and overdue ones.

A trial of Tune is a packet: plans that one worker evaluates one after another.  It costs the driver a pass of Tune's
loop, so plans with short evaluations travel together.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from stepfront.search.config import WorkerSettings
from stepfront.search.execution.placement import WorkerCount
from stepfront.search.execution.ray_private import actor_of, error_of
from stepfront.search.execution.worker import EvaluationError, end_worker, evaluation_error, overdue, reason_of
from stepfront.search.study.ledger import Asked, Ledger
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluation import Evaluation

OnResult = Callable[[], None]
OnStep = Callable[[], None]

LONGEST_PACKET = 5.0
"""Seconds that the plans of a packet take together, where there are many workers."""

SECONDS_PER_WORKER = 0.25
"""The same per worker: a few workers don't keep the driver busy, and each plan under way costs about one evaluation,
since proposals know what is expected of it, not its result (docs/search.md)."""

_LAST = 16
"""Number of results whose median is the time per evaluation; the first of a worker may include compiling."""


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


class PacketSize:
    """Decide how many plans travel together, from the seconds that evaluations take.

    All plans of a packet may take `longest` seconds together; None: SECONDS_PER_WORKER, and LONGEST_PACKET at most.
    `limit` is the time limit of one evaluation, which holds for a packet as well.
    """

    def __init__(self, longest: float | None, limit: float) -> None:
        self._longest, self._limit = longest, limit
        self._seconds: deque[float] = deque(maxlen=_LAST)

    def add(self, seconds: float) -> None:
        """Count an evaluation that took so many seconds."""
        self._seconds.append(seconds)

    def plans(self, slots: int, known: int, remaining: int | None) -> int:
        """Return the number of plans in the next packet of a search with `slots` workers and `known` results.

        No more plans are under way than there are results, on which all that is believed of them rests.  The last
        `remaining` ones are for all workers alike.
        """
        if slots < 2 or not self._seconds:
            return 1  # with one worker, a search must be the same at every run
        longest = min(LONGEST_PACKET, SECONDS_PER_WORKER * slots) if self._longest is None else self._longest
        fitting = int(min(longest, self._limit / 4) / max(statistics.median(self._seconds), 1e-3))
        return max(1, min(fitting, known // slots, fitting if remaining is None else remaining // slots))


class LedgerSearcher(Searcher):
    """The ledger as a search algorithm of Ray Tune.

    It never raises, because an exception in a searcher would end the Tune run.  The first error is kept in `error`, and
    the search ends gracefully.

    A plan that was tried before travels alone, and so does each plan of a packet whose worker was lost: only the plan
    that a worker held alone can be charged with its loss.
    """

    def __init__(self, ledger: Ledger, job: Job, workers: WorkerSettings, on_result: OnResult, limit: float) -> None:
        super().__init__()
        self._ledger, self._job, self._workers, self._on_result = ledger, job, workers, on_result
        self._size = PacketSize(workers.packet_seconds, limit)
        self._running: dict[str, list[Asked]] = {}
        self._untried: deque[Asked] = deque()
        self._alone: deque[Asked] = deque()
        self._slots = WorkerCount(workers)
        self.error: Exception | None = None

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Accept any properties; the ledger needs none."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the configuration of the next packet; None to wait, FINISHED at the end."""
        if self.error is not None:
            return Searcher.FINISHED
        try:
            if len(self._running) >= self._slots():
                return None
            packet = self._next_packet()
            config = {"packet": [self._job.of(asked) for asked in packet]}
        except Exception as error:
            self.error = error
            return Searcher.FINISHED
        if not packet:
            # A running trial may still fail and be tried again; only without any is the search at its end.
            return None if self._running else Searcher.FINISHED
        self._running[trial_id] = packet
        return config

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Record the results of a packet; failures reach the searcher through `Watch`, which knows the reason."""
        if result is not None and "evaluations" in result:
            self._record(self._running.pop(trial_id, []), result["evaluations"], result["worker"])

    def on_plan_failed(self, trial_id: str, error: EvaluationError) -> None:
        """Record that a plan of a packet raised: those before it have results, those after it were not tried."""
        packet = self._running.pop(trial_id, [])
        evaluations, worker = error.before
        self._record(packet, evaluations, worker)
        failed = packet[len(evaluations) :]
        self._untried.extend(failed[1:])
        self._fail(failed[:1], str(error))

    def on_trial_lost(self, trial_id: str, reason: str) -> None:
        """Record that a packet will have no results from its worker."""
        packet = self._running.pop(trial_id, [])
        again = packet if len(packet) > 1 else [one for one in packet if one.attempt < self._workers.attempts]
        if again:  # after its last attempt, a plan is a failed trial
            plans = "1 plan is" if len(again) == 1 else f"{len(again)} plans are"
            logging.getLogger("stepfront").warning("%s scored again: %s", plans, reason)
        if len(packet) > 1:
            self._alone.extend(packet)
        else:
            self._fail(packet, reason)

    @property
    def in_flight(self) -> list[str]:
        """The ids of the packets that were handed out and have not ended."""
        return list(self._running)

    def _record(self, packet: Sequence[Asked], evaluations: Sequence[tuple[Any, ...]], worker: str) -> None:
        try:
            for asked, values in zip(packet, evaluations, strict=False):
                evaluation = Evaluation(*values)
                self._size.add(evaluation.seconds)
                self._ledger.tell(asked.number, evaluation, worker)
                self._on_result()
            self._ledger.sync()
        except Exception as problem:
            self.error = self.error or problem

    def _fail(self, packet: Sequence[Asked], reason: str) -> None:
        try:
            for asked in packet:
                self._ledger.fail(asked.number, reason)
                self._on_result()
            self._ledger.sync()
        except Exception as problem:
            self.error = self.error or problem

    def _next_packet(self) -> list[Asked]:
        known, remaining = len(self._ledger.complete), self._ledger.remaining
        size = self._size.plans(self._slots(), known, remaining)
        packet: list[Asked] = []
        while len(packet) < size and not self._alone:
            asked = self._untried.popleft() if self._untried else self._ledger.ask()
            if asked is None:
                break
            (self._alone if asked.attempt > 1 else packet).append(asked)
        return packet or ([self._alone.popleft()] if self._alone else [])

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
                self._report(trial)
            elif now - since > self._limit and trial_id not in self._overdue:
                self._overdue.add(trial_id)
                end_worker(actor_of(trial))
        self._trials = {trial_id: self._trials[trial_id] for trial_id in in_flight if trial_id in self._trials}
        self._on_step()

    def _report(self, trial: Any) -> None:
        if trial.trial_id in self._overdue:
            self._searcher.on_trial_lost(trial.trial_id, overdue(self._limit))
            return
        try:
            error = error_of(trial)
        except Exception:  # no such file, or whatever its content may raise
            error = None
        if (failed := evaluation_error(error)) is not None:
            self._searcher.on_plan_failed(trial.trial_id, failed)
        else:
            self._searcher.on_trial_lost(trial.trial_id, reason_of(error))

    def __getstate__(self) -> dict[str, Any]:
        return {}
