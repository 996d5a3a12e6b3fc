"""MLflow and how to reach it: snapshots of a search's tables in; the search's runs brought in line with them.

What MLflow lacks is found by comparing the tables with what was written (mlflow.json beside them, or the server's own
runs), so a server that was away, or a driver that was killed, is made good by the next snapshot or by a later run.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from stepfront.addresses import redacted, resolved
from stepfront.files import read_json, write_json
from stepfront.search.config import RunSettings
from stepfront.search.storage.lock import directory_lock
from stepfront.tables.search_tables import Snapshot

if TYPE_CHECKING:
    from mlflow import MlflowClient

STATE_FILE = "mlflow.json"

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


@dataclass
class Written:
    """What MLflow holds already: its ids, and by trial the child run, its rank, its label and its confirmed scores."""

    experiment_id: str = ""
    run_id: str = ""
    children: dict[str, str] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    confirmed: dict[str, dict[str, float]] = field(default_factory=dict)
    evaluations: int = 0


class Mirror:
    """Brings MLflow in line with snapshots.  `problem` says why the last attempt failed, if it did."""

    def __init__(self, settings: RunSettings, directory: Path) -> None:
        set_environment()
        self.problem = ""
        self._settings, self._directory = settings, directory
        self._uri = tracking_uri(settings.tracking.uri)
        self._written = read_state(directory)
        self._known = False

    def write(self, newest: Callable[[], Snapshot]) -> bool:
        """Writes what MLflow lacks of the newest tables; False, with a `problem`, where that failed."""
        return self._try(lambda: self._write(newest()))

    def close(
        self, snapshot: Snapshot, artifacts: Path, finished: bool, summary: str = "", timeout: float | None = None
    ) -> str:
        """Writes the last snapshot and the artifacts, and returns what went wrong.  It waits `timeout` seconds at most,
        by default long enough for a slow server to take every trial.

        `summary` is a plain sentence that the run's note begins with.
        """
        if self._uri is None:
            return ""
        timeout = 120 + 0.5 * len(snapshot.trials) if timeout is None else timeout

        def finish() -> None:
            from stepfront.search.tracking.search_runs import finish_search

            self._write(snapshot)
            client = make_client(self._uri)
            finish_search(client, self._settings, self._written, snapshot, artifacts, finished, summary)

        last = threading.Thread(target=self._try, args=(finish,), daemon=True)
        last.start()
        last.join(timeout)
        return f"MLflow at {self._uri} is too slow" if last.is_alive() else self.problem

    @property
    def run(self) -> Written:
        return self._written

    @property
    def uri(self) -> str | None:
        return self._uri

    def _try(self, action: Callable[[], None]) -> bool:
        try:
            # The writer of a driver that was killed may still be in its last request.
            with directory_lock(self._directory, name="mlflow.lock", wait_seconds=600):
                action()
            self.problem = ""
            return True
        except Exception as error:  # whatever MLflow, its database or its server raise must not end a search
            self.problem = f"MLflow at {self._uri}: {next(iter(redacted(error).splitlines()), type(error).__name__)}"
            return False
        finally:
            _write_state(self._directory, self._written)

    def _write(self, snapshot: Snapshot) -> None:
        from stepfront.search.tracking.search_runs import find_search_run, write_search

        client = make_client(self._uri)
        if not self._known:
            # A killed driver may have written more than it noted down: the first time, the server's own runs tell.
            find_search_run(client, self._settings, self._written, snapshot)
            self._known = True
        write_search(client, self._settings, self._written, snapshot)


def set_environment() -> None:
    """No telemetry, no chatter, and short waits for a server that is away; what the user has set stands."""
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)


def make_client(uri: str | None) -> MlflowClient:
    """A client of the tracking store, whose `${NAME}`s are the environment's; its chatter is kept from the terminal."""
    from mlflow import MlflowClient

    uri = resolved(uri) if uri else uri
    for name in ("mlflow", "alembic"):  # after the import, which sets levels of its own
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def tracking_uri(uri: str | None) -> str | None:
    """The URI with the folder of a SQLite file made, since SQLite itself makes none."""
    if uri is not None and uri.startswith("sqlite:///"):
        path = Path(uri.removeprefix("sqlite:///")).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{path}"
    return uri


def artifact_folder(uri: str | None) -> str | None:
    """Where artifacts go: beside a SQLite file, wherever the command was called from; else where the server says."""
    if uri is not None and uri.startswith("sqlite:///"):
        return (Path(uri.removeprefix("sqlite:///")).absolute().parent / "mlartifacts").as_uri()
    return None


def read_state(directory: Path) -> Written:
    """What the search in `directory` has written to MLflow, as far as it noted it down."""
    path = directory / STATE_FILE
    try:
        return Written(**read_json(path, "MLflow state")) if path.exists() else Written()
    except (ValueError, TypeError):
        return Written()  # the server's own runs tell


def _write_state(directory: Path, written: Written) -> None:
    try:
        write_json(directory / STATE_FILE, asdict(written))
    except ValueError:
        logging.getLogger(__name__).warning("can't write %s", directory / STATE_FILE)
