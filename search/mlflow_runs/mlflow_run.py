"""Find or begin a run of MLflow by its tags, and write to it within MLflow's limits."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepfront.search.config import RunSettings
from stepfront.search.mlflow_runs.client import get_existing
from stepfront.search.mlflow_runs.states import ensure_active, usable_experiment
from stepfront.search.mlflow_runs.written import WrittenRun

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric, Run

MAX_PARAM_CHARACTERS = 5900
"""Characters of a parameter's value; MLflow takes 6,000."""

MAX_METRICS = 900
"""Metrics per request; MLflow takes 1,000."""

MAX_DIGEST_CHARACTERS = 36
"""Characters of a data set's digest; the source holds the complete fingerprint."""


@dataclass(frozen=True)
class RunStart:
    """Describe a run: the tags by which it is found, and what a new one begins with."""

    experiment: str
    artifacts: str | None
    name: str
    identity: Mapping[str, str]
    tags: Mapping[str, Any]
    params: Mapping[str, Any]
    dataset: DatasetInput
    metrics: Sequence[Metric] = ()


class MlflowRun:
    """Write to one run."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client, self.run_id = client, run_id

    @classmethod
    def begin(cls, client: MlflowClient, experiment_id: str, name: str, tags: Mapping[str, Any]) -> MlflowRun:
        """Create a run."""
        return cls(client, client.create_run(experiment_id, run_name=name, tags=dict(tags)).info.run_id)

    def log(
        self,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Write metrics, parameters and tags in as few requests as MLflow allows; long parameters are cut."""
        from mlflow.entities import Param, RunTag

        rest = {
            "params": [Param(key, str(value)[:MAX_PARAM_CHARACTERS]) for key, value in (params or {}).items()],
            "tags": [RunTag(key, value) for key, value in (tags or {}).items()],
        }
        if metrics or any(rest.values()):
            self.client.log_batch(self.run_id, metrics=metrics[:MAX_METRICS], **rest)
        for first in range(MAX_METRICS, len(metrics), MAX_METRICS):
            self.client.log_batch(self.run_id, metrics=metrics[first : first + MAX_METRICS])

    def log_files(self, paths: Sequence[Path]) -> None:
        """Store files as artifacts."""
        for path in paths:
            self.client.log_artifact(self.run_id, str(path))

    def end(self, status: str) -> None:
        """End the run with FINISHED, FAILED or KILLED."""
        self.client.set_terminated(self.run_id, status)


def find_or_begin(
    client: MlflowClient, written: WrittenRun, start: RunStart, mend: bool = False
) -> tuple[MlflowRun, bool]:
    """Return the run that `start` describes, and whether the store had it; note its ids in `written`.

    The noted run counts only when it bears the identity.  The tracking store may be another one since, and a process
    that outlived its killed driver may have noted the run of an earlier search.  With `mend`, a run or an experiment
    that was deleted is restored; otherwise it raises InputError.
    """
    from mlflow.entities import ViewType

    if written.run_id:
        noted = get_existing(lambda: client.get_run(written.run_id))
        if noted is not None and start.identity.items() <= noted.data.tags.items():
            ensure_active(client, noted, mend)
            return _complete(client, noted, start), True
        written.forget()
    experiment = usable_experiment(client, start.experiment, mend)
    written.experiment_id = (
        experiment.experiment_id if experiment else client.create_experiment(start.experiment, start.artifacts)
    )
    # A driver that was killed before it noted the run finds it by its tags.
    query = " and ".join(f"tags.{key} = '{value}'" for key, value in start.identity.items())
    found = client.search_runs([written.experiment_id], query, ViewType.ALL, max_results=1)
    if found:
        ensure_active(client, found[0], mend)
        written.run_id = found[0].info.run_id
        return _complete(client, found[0], start), True
    run = MlflowRun.begin(client, written.experiment_id, start.name, {**start.identity, **start.tags})
    written.run_id = run.run_id
    _log_start(run, start)
    return run, False


def _log_start(run: MlflowRun, start: RunStart) -> None:
    run.log(start.metrics, start.params)
    run.client.log_inputs(run.run_id, [start.dataset])


def _complete(client: MlflowClient, found: Run, start: RunStart) -> MlflowRun:
    """Return a found run; one without parameters or data gets what it begins with: a driver was killed there."""
    run = MlflowRun(client, found.info.run_id)
    if start.params and not found.data.params:
        _log_start(run, start)
    elif found.inputs is not None and not found.inputs.dataset_inputs:
        client.log_inputs(run.run_id, [start.dataset])
    return run


def finite_metrics(values: Mapping[Any, Any], step: int = 0, milliseconds: int | None = None) -> list[Metric]:
    """Return the finite values as metrics of a time since 1970 (default: now); others would ruin the UI's axes."""
    from mlflow.entities import Metric

    at = int(time.time() * 1000) if milliseconds is None else milliseconds
    return [Metric(str(key), float(value), at, step) for key, value in values.items() if math.isfinite(float(value))]


def dataset_input(
    settings: RunSettings, name: str, fingerprint: str | None, context: str, profile: Mapping[str, Any]
) -> DatasetInput:
    """Return the settings' images as the input of a run; `context` is "training" or "search"."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = {"format": settings.data.format, "path": settings.data.path, "fingerprint": fingerprint}
    digest = str(fingerprint)[:MAX_DIGEST_CHARACTERS]
    data = Dataset(name, digest, "stepfront", json.dumps(source), profile=json.dumps(profile))
    return DatasetInput(data, [InputTag("mlflow.data.context", context)])
