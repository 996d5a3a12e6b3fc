"""Log a point of the front as a model of MLflow, which the run of its search shows in the column Models."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepfront.search.export.stored_files import POINT, ModelArtifacts, is_stored, mend_model, store_folder
from stepfront.search.mlflow_runs.client import get_existing

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

KIND = "stepfront"
"""Type of the models, a column in MLflow's list of models."""

MODEL_TAG = "logged_model"
"""Tag of a registered version: the id of its logged model, which MLflow's own stores do not keep."""


def log_point(
    client: MlflowClient, run_id: str, point: Mapping[str, Any], tags: Mapping[str, str], folder: Path
) -> LoggedModel:
    """Log the MLflow model in `folder` as that of a run, and return it; `point` holds the facts of the front point.

    `tags` hold the digest of the point, by which the model of an earlier call is found.  One that is READY may belong
    to a version, so it stays as it is; only damaged files of the point are stored again.  Others, of calls that were
    killed, are completed.  A new or incomplete model whose files can't be stored is deleted.  Raises InputError and
    MLflow's errors then.
    """
    from mlflow.entities import LoggedModelStatus

    experiment = client.get_run(run_id).info.experiment_id
    query = f"source_run_id = '{run_id}' AND tags.digest = '{tags['digest']}'"
    found = client.search_logged_models([experiment], query)
    ready = next((one for one in found if one.status == LoggedModelStatus.READY), None)
    if ready is not None:
        artifacts = ModelArtifacts(client, ready.model_id)
        if not is_stored(artifacts, folder / POINT, POINT):
            mend_model(artifacts, folder, "")
        return ready
    model = found[0] if found else _create(client, experiment, run_id, point, tags)
    try:
        store_folder(ModelArtifacts(client, model.model_id), folder, "")
    except BaseException:
        with contextlib.suppress(Exception):  # what went wrong before is what the user reads
            client.delete_logged_model(model.model_id)
        raise
    return client.finalize_logged_model(model.model_id, "READY")


def _create(
    client: MlflowClient, experiment: str, run_id: str, point: Mapping[str, Any], tags: Mapping[str, str]
) -> LoggedModel:
    params = {key: str(value) for key, value in point.items() if value is not None}
    return client.create_logged_model(
        experiment, f"trial-{point['trial']}", source_run_id=run_id, tags=dict(tags), params=params, model_type=KIND
    )


def show_in_run(client: MlflowClient, model_id: str, run_id: str) -> None:
    """Add the model to the outputs of a run, unless the run is missing or deleted, or shows it already."""
    from mlflow.entities import LoggedModelOutput

    run = get_existing(lambda: client.get_run(run_id)) if run_id else None
    if run is not None and run.info.lifecycle_stage == "active":
        shown = run.outputs.model_outputs if run.outputs else []
        if model_id not in {one.model_id for one in shown}:
            client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])


def show_version(client: MlflowClient, model_id: str, name: str, version: str) -> None:
    """Let the page of the model link to a version of a registered model, as `mlflow.register_model` does."""
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

    shown = json.loads(client.get_logged_model(model_id).tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
    one = {"name": name, "version": version}
    if one not in shown:
        client.set_logged_model_tags(model_id, {MLFLOW_MODEL_VERSIONS: json.dumps([*shown, one])})
