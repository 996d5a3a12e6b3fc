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
from collections.abc import Iterator
from typing import Any

import ray
from ray import tune

from stepfront import SOURCE_ROOT
from stepfront.errors import InputError, first_line
from stepfront.search.config import WorkerSettings
from stepfront.search.execution.placement import slots_now
from stepfront.search.execution.tune_searcher import FirstFree, Job, LedgerSearcher, OnResult, OnStep, Watch
from stepfront.search.execution.worker import EvaluationWorker, Load
from stepfront.search.study.ledger import Ledger

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


@contextlib.contextmanager
def ray_session(workers: WorkerSettings) -> Iterator[None]:
    """A Ray cluster: the one at `workers.address`, one that is already connected, or a new one on loopback."""
    os.environ.update({key: value for key, value in _ENVIRONMENT.items() if key not in os.environ})
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if workers.address:
                ray.init(address=workers.address, **quiet)
            else:
                # Workers import the packages from where the driver does.
                path = os.pathsep.join(filter(None, [str(SOURCE_ROOT), os.environ.get("PYTHONPATH", "")]))
                keep_to_loopback()
                ray.init(
                    address="local",  # or it would join any cluster that it finds on this machine
                    include_dashboard=False,
                    runtime_env={"env_vars": {"PYTHONPATH": path}},
                    **quiet,
                )
    except Exception as error:
        line = first_line(error)
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
