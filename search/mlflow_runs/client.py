"""Reach MLflow: its environment, its clients, and the addresses of its store and artifacts."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from stepfront.addresses import resolved

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")

_SQLITE = "sqlite:///"

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def set_environment() -> None:
    """Turn off MLflow's telemetry and output, and shorten its waits; what the user has set is not changed."""
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)


def make_client(uri: str | None) -> MlflowClient:
    """Return a client of the tracking store at `uri`, with each `${NAME}` replaced by the environment's value.

    MLflow's log lines below errors are hidden from the terminal.
    """
    from mlflow import MlflowClient

    uri = resolved(uri) if uri else uri
    for name in ("mlflow", "alembic"):  # after the import, which sets levels of its own
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def make_writing_client(uri: str) -> MlflowClient:
    """Return a client that may create its store: the folder of a SQLite file is made, since SQLite makes none."""
    if (file := _sqlite_file(uri)) is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    return make_client(uri)


def tracking_uri(uri: str | None) -> str | None:
    """Return the address of a tracking store with the path of a SQLite file made absolute."""
    file = _sqlite_file(uri)
    return uri if file is None else f"{_SQLITE}{file}"


def artifact_folder(uri: str | None) -> str | None:
    """Return the folder of artifacts beside a SQLite file; None for other stores, whose server decides."""
    file = _sqlite_file(uri)
    return None if file is None else (file.parent / "mlartifacts").as_uri()


def get_existing(get: Callable[[], T]) -> T | None:
    """Return what `get` reads from the store; None when the store does not have it."""
    from mlflow.exceptions import MlflowException

    try:
        return get()
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _sqlite_file(uri: str | None) -> Path | None:
    return Path(uri.removeprefix(_SQLITE)).absolute() if uri is not None and uri.startswith(_SQLITE) else None
