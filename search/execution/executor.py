"""Evaluate the trials of a study with Ray Tune.

Tune only executes.  Its own state is disposable: a resumed search is a new Tune run over the same ledger.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings

from ray import tune

from stepfront.search.config import WorkerSettings
from stepfront.search.execution.placement import slots_now, worker_resources
from stepfront.search.execution.tune_searcher import FirstFree, Job, LedgerSearcher, OnResult, OnStep, Watch
from stepfront.search.execution.tune_worker import EvaluationWorker
from stepfront.search.execution.worker import Load, StoredLoad
from stepfront.search.study.ledger import Ledger


def run_trials(
    ledger: Ledger,
    load: Load,
    job: Job,
    workers: WorkerSettings,
    on_result: OnResult,
    limit: float,
    on_step: OnStep = lambda: None,
) -> None:
    """Evaluate trials until the ledger has none left.  Needs a `ray_session`.

    An evaluation fails when it takes longer than `limit` seconds, or when its worker raises, dies or is lost with its
    node.  Another worker then tries it again, and the others do not wait for it.  Workers get plans in packets.
    `on_step` is called after each event.
    Raises InputError when no worker fits on the cluster, and any exception of the ledger or of `on_result`.
    """
    slots_now(workers)  # refuses workers that could never start
    searcher = LedgerSearcher(ledger, job, workers, on_result, limit)
    _run_tune(searcher, load, workers, limit, on_step)
    if searcher.error is not None:
        raise searcher.error


def _run_tune(searcher: LedgerSearcher, load: Load, workers: WorkerSettings, limit: float, on_step: OnStep) -> None:
    trainable = tune.with_resources(
        tune.with_parameters(EvaluationWorker, load=StoredLoad(load)),
        tune.PlacementGroupFactory([worker_resources(workers)]),
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
