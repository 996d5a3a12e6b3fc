"""Ray Tune around study and workers: a ledger and a loader in, every trial of the budget told to the ledger.

Tune only executes.  Its own state is disposable: a resume is a new Tune run over the same ledger.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher

from search.config import WorkerSettings
from search.study import Asked, Ledger
from search.worker import EvaluationWorker, ListWorker, Load
from trainers.errors import InputError
from trainers.evaluation import Evaluation
from trainers.plan import Plan

OnResult = Callable[[], None]

_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # five files a trial that nobody reads
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",  # Tune's state is never restored
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours: it ends the search in order
    "TUNE_WARN_THRESHOLD_S": "1000",
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
                _keep_to_loopback()
                ray.init(
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


def _keep_to_loopback() -> None:
    """A cluster of one machine listens on 127.0.0.1 alone.

    Ray does so by itself on Windows and macOS; on Linux it replaces a given 127.0.0.1 by the machine's own address, and
    this switch, for which there is no public one, is all that keeps it from that.
    """
    from ray._private import ray_constants

    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False


def worker_count(workers: WorkerSettings) -> int:
    """As many workers as the settings say, or as fit on the cluster now."""
    return workers.count if workers.count is not None else slots_now(workers)


def slots_now(workers: WorkerSettings) -> int:
    """How many workers fit on the cluster as it is.  InputError when not one does."""
    resources = ray.cluster_resources()
    slots = resources.get("CPU", 0) / workers.cpus
    if workers.gpus:
        slots = min(slots, resources.get("GPU", 0) / workers.gpus)
    if slots < 1:
        asked = f"{workers.cpus:g} CPUs and {workers.gpus:g} GPUs"
        there = f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"
        raise InputError(f"a worker asks for {asked}; the cluster has {there}")
    return int(slots)


def run_trials(ledger: Ledger, load: Load, job: Job, workers: WorkerSettings, on_result: OnResult) -> None:
    """Evaluates until the ledger has nothing more to ask.  Needs a `ray_session`."""
    slots_now(workers)  # refuses workers that could never start
    slots = worker_count(workers)
    while ledger.waiting or not ledger.spent():
        before = len(ledger.trials), ledger.finished, ledger.waiting
        searcher = LedgerSearcher(ledger, job, slots, on_result)
        _run_tune(searcher, load, slots, workers)
        if searcher.error is not None:
            raise searcher.error
        # Tune gives up on a trial whose worker dies while it is reset, and does not say so.
        ledger.abandon_live("its worker died")
        if (len(ledger.trials), ledger.finished, ledger.waiting) == before:
            break  # nothing left to propose: every plan of the space is known


def _run_tune(searcher: LedgerSearcher, load: Load, slots: int, workers: WorkerSettings) -> None:
    trainable = tune.with_resources(
        tune.with_parameters(EvaluationWorker, load=load), {"cpu": workers.cpus, "gpu": workers.gpus}
    )
    scratch = tempfile.mkdtemp(prefix="stepfront-tune-")
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(
                    search_alg=searcher,
                    num_samples=-1,
                    max_concurrent_trials=slots,
                    reuse_actors=True,
                    trial_dirname_creator=lambda trial: trial.trial_id,
                ),
                run_config=tune.RunConfig(
                    name="trials",
                    storage_path=scratch,
                    verbose=0,
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    failure_config=tune.FailureConfig(max_failures=0),
                ),
            ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class LedgerSearcher(Searcher):
    """Tune's view of the ledger.  It never raises: an exception in a searcher would end the whole Tune run.  What went
    wrong is kept in `error`, and the search is ended in order."""

    def __init__(self, ledger: Ledger, job: Job, slots: int, on_result: OnResult) -> None:
        super().__init__()
        self._ledger, self._job, self._slots, self._on_result = ledger, job, slots, on_result
        self._asked: dict[str, Asked] = {}
        self.error: Exception | None = None

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self.error is not None:
            return Searcher.FINISHED
        if len(self._asked) >= self._slots:
            return None
        try:
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
        asked = self._asked.pop(trial_id, None)
        if asked is None:
            return
        try:
            if result is None or "evaluation" not in result:
                self._ledger.fail(asked.number, "its worker died")
            else:
                self._ledger.tell(asked.number, Evaluation(*result["evaluation"]), result["worker"])
            self._on_result()
        except Exception as problem:
            self.error = self.error or problem

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_text("the study is the truth\n")

    def restore(self, checkpoint_path: str) -> None:
        return

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher for a restore that never happens


def score_plans(
    plans: Sequence[tuple[Plan, int]],
    images: int,
    load: Load,
    workers: WorkerSettings,
    on_result: Callable[[int, int], None] = lambda done, total: None,
) -> list[Evaluation]:
    """Evaluations of (plan, noise seed) pairs, in their order, on as many workers as fit.  Needs a `ray_session`."""
    shared = ray.put(load)
    actor = ray.remote(num_cpus=workers.cpus, num_gpus=workers.gpus)(ListWorker)
    # An actor that the cluster has no room for would hold its plan for ever.
    count = min(worker_count(workers), slots_now(workers), len(plans))
    idle = [actor.remote(shared) for _ in range(count)]
    todo = [(index, 1) for index in reversed(range(len(plans)))]
    waiting: dict[Any, tuple[int, int, Any]] = {}
    results: dict[int, Evaluation] = {}
    try:
        while len(results) < len(plans):
            while idle and todo:
                index, attempt = todo.pop()
                worker, (plan, noise_seed) = idle.pop(), plans[index]
                waiting[worker.score.remote(plan, images, noise_seed)] = (index, attempt, worker)
            ready = ray.wait(list(waiting), num_returns=1)[0][0]
            index, attempt, worker = waiting.pop(ready)
            try:
                results[index] = ray.get(ready)
                idle.append(worker)
                on_result(len(results), len(plans))
            except ray.exceptions.RayActorError as error:
                if attempt >= workers.attempts:
                    raise InputError(f"the plan {plans[index][0].runs} killed {attempt} workers") from error
                todo.append((index, attempt + 1))
                idle.append(actor.remote(shared))
    finally:
        for worker in [*idle, *(held[2] for held in waiting.values())]:
            ray.kill(worker)
    return [results[i] for i in range(len(plans))]
