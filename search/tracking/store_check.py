"""Check at the start of a training or a search whether MLflow can be written, so that nobody learns it hours later."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stepfront.errors import InputError
from stepfront.search.config import RunSettings
from stepfront.search.mlflow_runs.background import BackgroundWriter
from stepfront.search.mlflow_runs.client import check_store_exists, get_existing, tracking_uri
from stepfront.search.mlflow_runs.states import check_experiment, ensure_active, try_a_run
from stepfront.search.mlflow_runs.written import WrittenRun, WrittenSearch
from stepfront.search.tracking.experiments import search_experiment, training_experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient


class StoreCheck:
    """Check in a thread, while other things are prepared.  `problem` waits for the result."""

    def __init__(self, settings: RunSettings, written: WrittenRun, trains: bool, tries_a_run: bool = False) -> None:
        """Create a run and delete it, with `tries_a_run`: it stays in the store as a deleted one."""
        uri = tracking_uri(settings.tracking.uri)
        experiment = training_experiment(settings) if trains else search_experiment(settings)
        self._found = ""
        self._writer: BackgroundWriter[MlflowClient] = BackgroundWriter(uri, lambda client: client)

        def check(client: MlflowClient) -> None:
            self._found = check_experiment(client, experiment, datetime.now(UTC).isoformat(timespec="seconds"))
            if tries_a_run and (tried := try_a_run(client, experiment)):
                self._found += f", {tried}"
            noted = get_existing(lambda: client.get_run(written.run_id)) if written.run_id else None
            if noted is not None:
                ensure_active(client, noted, mend=False)

        self._writer.start(check)

    def problem(self, timeout: float = 60) -> str:
        """Return why MLflow can't be written, or an empty text."""
        return self._writer.wait(timeout)

    def found(self, timeout: float = 60) -> str:
        """Return what was found.  Raises InputError where MLflow can't be written."""
        if problem := self.problem(timeout):
            raise InputError(problem)
        return self._found


def check_run(settings: RunSettings) -> str:
    """Return where a search is in MLflow.

    Raises InputError when its note is damaged, its database is missing, or experiment or run can't be written.
    """
    uri = tracking_uri(settings.tracking.uri)
    if uri is None:
        return "disabled (tracking.uri: null)"
    try:
        written = WrittenSearch.read_strictly(settings.search_directory)
    except InputError as error:
        raise InputError(f"{error}; `stepfront sync` writes what MLflow lacks, and the note") from None
    check_store_exists(uri)
    StoreCheck(settings, written, trains=False).found()
    return f"{len(written.children)} trials in run {written.run_id} at {uri}"
