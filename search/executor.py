"""Ray Tune around study and workers: a ledger and a loader in, every trial of the budget told to the ledger.

Tune only executes.  Its own state is disposable: a resume is a new Tune run over the same ledger.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from search.config import WorkerSettings
from search.placement import slots_now, worker_count
from search.study import Asked, Ledger
from search.worker import EvaluationError, EvaluationWorker, Load
from trainers.errors import InputError
from trainers.evaluation import Evaluation
from trainers.plan import Plan

OnResult = Callable[[], None]
OnStep = Callable[[], None]

_SLOTS_FOR = 3.0
"""Seconds for which the cluster's size is taken as known."""

_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # five files a trial that nobody reads
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",  # Tune's state is never restored
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours: it ends the search in order
    "TUNE_WARN_THRESHOLD_S": "1000",
    "TUNE_MAX_PENDING_TRIALS_PG": "4096",  # the searcher itself keeps to as many as there are places
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}


@dataclass(frozen=True)
class Job:
    """What a worker needs to know of a trial beside the plan."""

    plan_of: Callable[[str], Plan]
    images: int
    noise_seed: int


@contextlib.contextmanager
def ray_session(workers: WorkerSettings) -> Iterator[None]:
    """A Ray cluster: the one at `workers.address`, one that is already connected, or a new one on loopback."""
    os.environ.update({key: value for key, value in _ENVIRONMENT.items() if key not in os.environ})
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    root = str(Path(__file__).resolve().parent.parent)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if workers.address:
                ray.init(address=workers.address, **quiet)
            else:
                # Workers import the packages from where the driver does.
                path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
                keep_to_loopback()
                ray.init(
                    address="local",  # or it would join any cluster that it finds on this machine
                    include_dashboard=False,
                    runtime_env={"env_vars": {"PYTHONPATH": path}},
                    **quiet,
                )
    except Exception as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"no Ray cluster at {workers.address or 'this machine'}: {line}") from error
    try:
        yield
    finally:
        ray.shutdown()


def keep_to_loopback() -> None:
    """A cluster of one machine listens on 127.0.0.1 alone.

    Ray does so by itself on Windows and macOS; on Linux it replaces a given 127.0.0.1 by the machine's own address, and
    this switch, for which there is no public one, is all that keeps it from that.
    """
    from ray._private import ray_constants

    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False


def run_trials(
    ledger: Ledger,
    load: Load,
    job: Job,
    workers: WorkerSettings,
    on_result: OnResult,
    limit: float,
    on_step: OnStep = lambda: None,
) -> None:
    """Evaluates until the ledger has nothing more to ask.  Needs a `ray_session`.

    An evaluation that takes longer than `limit` seconds, or whose worker raises, dies or goes away with its node, is
    asked again of another worker; the others do not wait for it.  `on_step` is called whenever something has moved.
    """
    slots_now(workers)  # refuses workers that could never start
    searcher = LedgerSearcher(ledger, job, workers, on_result)
    _run_tune(searcher, load, workers, limit, on_step)
    if searcher.error is not None:
        raise searcher.error


def _run_tune(searcher: LedgerSearcher, load: Load, workers: WorkerSettings, limit: float, on_step: OnStep) -> None:
    trainable = tune.with_resources(
        tune.with_parameters(EvaluationWorker, load=load), {"cpu": workers.cpus, "gpu": workers.gpus}
    )
    scratch = tempfile.mkdtemp(prefix="stepfront-tune-")
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(
                    search_alg=searcher,
                    scheduler=FirstFree(),
                    num_samples=-1,
                    reuse_actors=True,
                    trial_dirname_creator=lambda trial: trial.trial_id,
                ),
                run_config=tune.RunConfig(
                    name="trials",
                    storage_path=scratch,
                    verbose=0,
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    failure_config=tune.FailureConfig(max_failures=0),
                    callbacks=[Watch(searcher, limit, on_step)],
                ),
            ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class LedgerSearcher(Searcher):
    """Tune's view of the ledger.  It never raises: an exception in a searcher would end the whole Tune run.  What went
    wrong is kept in `error`, and the search is ended in order."""

    def __init__(self, ledger: Ledger, job: Job, workers: WorkerSettings, on_result: OnResult) -> None:
        super().__init__()
        self._ledger, self._job, self._workers, self._on_result = ledger, job, workers, on_result
        self._asked: dict[str, Asked] = {}
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
            asked = self._ledger.ask()
        except Exception as error:
            self.error = error
            return Searcher.FINISHED
        if asked is None:
            # A worker may still fail and its trial wait again; only with nothing in flight is there nothing to come.
            return None if self._asked else Searcher.FINISHED
        self._asked[trial_id] = asked
        plan = self._job.plan_of(asked.genome)
        job = {
            "plan": (plan.times, plan.widths, plan.solver),
            "images": self._job.images,
            "noise_seed": self._job.noise_seed,
        }
        return {"job": job}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if result is None or "evaluation" not in result:
            return  # the watch knows why, and says so
        self._end(
            trial_id,
            lambda asked: self._ledger.tell(asked.number, Evaluation(*result["evaluation"]), result["worker"]),
        )

    def lost(self, trial_id: str, reason: str) -> None:
        """A trial that will never have a result from this worker."""
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
