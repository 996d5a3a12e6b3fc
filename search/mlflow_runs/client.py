"""Reach MLflow: its environment, its clients, and the addresses of its store and artifacts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from stepfront.addresses import resolved
from stepfront.errors import InputError
from stepfront.search.mlflow_runs.local_store import ARTIFACTS, create_store, mend_moved_artifacts
from stepfront.search.mlflow_runs.open_client import open_client
from stepfront.sqlite_files import client_url, sqlite_file, sqlite_url

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")


def make_client(uri: str | None) -> MlflowClient:
    """Return a client of the tracking store at `uri`, with each `${NAME}` replaced by the environment's value.

    MLflow's log lines below errors are hidden from the terminal.
    """
    if (file := sqlite_file(uri)) is None:
        return open_client(resolved(uri) if uri else uri)
    if file.exists():
        mend_moved_artifacts(file)
    return open_client(client_url(file))


def check_store_exists(uri: str) -> None:
    """Raise InputError where the tracking store is a SQLite file that is missing, which MLflow would create."""
    file = sqlite_file(uri)
    if file is not None and not file.is_file():
        raise InputError(
            f"there is no MLflow database {file}; bring it to this place, or run `stepfront sync` on the run, which "
            "writes a new one"
        )


def make_writing_client(uri: str) -> MlflowClient:
    """Return a client that may create its store, a SQLite file; its folder is made where the folder above exists.

    Raises InputError when it can't be made.
    """
    file = sqlite_file(uri)
    if file is not None and not file.exists():
        try:
            file.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(
                f"the folder {file.parent} of the MLflow database can't be made ({error.strerror}); make it, or give "
                "another tracking.uri"
            ) from None
        create_store(file)
    return make_client(uri)


def tracking_uri(uri: str | None) -> str | None:
    """Return the address of a tracking store with the path of a SQLite file made absolute."""
    file = sqlite_file(uri)
    return uri if file is None else sqlite_url(file)


def artifact_folder(uri: str | None) -> str | None:
    """Return the folder of artifacts beside a SQLite file; None for other stores, whose server decides."""
    file = sqlite_file(uri)
    return None if file is None else (file.parent / ARTIFACTS).as_uri()


def get_existing(get: Callable[[], T]) -> T | None:
    """Return what `get` reads from the store; None when the store does not have it."""
    from mlflow.exceptions import MlflowException

    try:
        return get()
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
