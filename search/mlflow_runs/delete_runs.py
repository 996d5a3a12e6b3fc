"""Delete a run, its child runs and its logged models from MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepfront.errors import InputError, first_line
from stepfront.search.mlflow_runs.client import check_store_exists, get_existing, make_client

if TYPE_CHECKING:
    from mlflow import MlflowClient


def delete_runs(uri: str, experiment_id: str, run_id: str) -> int:
    """Mark a run and its children as deleted, and return how many; `mlflow gc` frees their space.

    Children go first, so that an interrupted call can be repeated.  Raises InputError when MLflow can't be reached.
    """
    check_store_exists(uri)
    try:
        client = make_client(uri)
        if get_existing(lambda: client.get_run(run_id)) is None:
            return 0
        query, count = f"tags.mlflow.parentRunId = '{run_id}'", 0
        while page := client.search_runs([experiment_id], query, max_results=1000):
            for run in page:
                client.delete_run(run.info.run_id)
            count += len(page)
        _delete_logged_models(client, experiment_id, run_id)
        client.delete_run(run_id)
        return count + 1
    except InputError:
        raise
    except Exception as error:  # MLflow and its drivers have many
        raise InputError(
            f"the runs in MLflow can't be deleted: {first_line(error)}; nothing else was deleted"
        ) from error


def _delete_logged_models(client: MlflowClient, experiment_id: str, run_id: str) -> None:
    """Mark the models of a run as deleted; versions of registered models keep their files until `mlflow gc`."""
    while found := client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"):
        for model in found:
            client.delete_logged_model(model.model_id)
