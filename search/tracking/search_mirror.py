"""Bring MLflow in line with the tables of a search.

What MLflow lacks is found by comparing the tables with mlflow.json beside them, or with the runs of the store.  So the
next snapshot, or a later command, makes up for a server that did not answer and for a driver that was killed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from stepfront.search.config import RunSettings
from stepfront.search.mlflow_runs.background import BackgroundWriter
from stepfront.search.mlflow_runs.client import tracking_uri
from stepfront.search.mlflow_runs.copies import read_own_note
from stepfront.search.mlflow_runs.written import WrittenSearch
from stepfront.search.storage.lock import directory_lock
from stepfront.search.tracking.search_runs import SearchRuns
from stepfront.tables.search_tables import Snapshot


class SearchMirror:
    """Write snapshots of the search in `directory` to MLflow; `written` is what it holds."""

    def __init__(self, settings: RunSettings, directory: Path, mend: bool = False) -> None:
        """Restore, with `mend`, what was deleted in MLflow."""
        self.written = read_own_note(directory, WrittenSearch, settings.tracking.uri)
        self.uri = tracking_uri(settings.tracking.uri)
        self._directory = directory
        self._writer = BackgroundWriter(self.uri, lambda client: SearchRuns(client, settings, self.written, mend))

    def write(self, read_newest: Callable[[], Snapshot]) -> bool:
        """Write what MLflow lacks of the newest tables, and return whether that succeeded."""

        def write_newest(runs: SearchRuns) -> None:
            with self._noted():
                runs.write(read_newest())

        return self._writer.write(write_newest)

    def close(
        self, snapshot: Snapshot, artifacts: Path, finished: bool, summary: str = "", timeout: float | None = None
    ) -> str:
        """Write the last snapshot and the files in `artifacts`, end the run, and return the problem, if any.

        `summary` is the sentence that the run's note begins with.  `timeout` is in seconds; the default is long enough
        for a slow server to take every trial.
        """

        def finish(runs: SearchRuns) -> None:
            with self._noted():
                runs.write(snapshot)
                runs.finish(snapshot, artifacts, finished, summary)

        self._writer.start(finish)
        return self._writer.wait(120 + 0.5 * len(snapshot.trials) if timeout is None else timeout)

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        """Save the note of what was written, also after a failure."""
        # The writer process of a driver that was killed may still be in its last request.
        with directory_lock(self._directory, name="mlflow.lock", wait_seconds=600):
            try:
                yield
            finally:
                self.written.save(self._directory)
