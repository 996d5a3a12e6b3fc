"""Show the tables of a running search to its observers, in a thread that the search does not wait for."""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import Any, Self

import pandas as pd

from stepfront.addresses import redacted
from stepfront.errors import first_line
from stepfront.search.config import RunSettings
from stepfront.search.observers.observer import Observer, Row, find_observer
from stepfront.tables.search_tables import Snapshot
from stepfront.trainers.validation import settings_json

END_SECONDS = 60.0
"""Seconds that the end of a search waits for its observers, at most."""


class Observers:
    """Keep the observers of `tracking.observers` up to date within a `with` block, and close them at its end."""

    def __init__(self, settings: RunSettings, end_seconds: float = END_SECONDS) -> None:
        """Import the observers.  Raises InputError when one of them can't be imported."""
        self._factories = {name: find_observer(name) for name in settings.tracking.observers}
        self._settings, self._end_seconds = settings_json(settings), end_seconds
        self._observers: dict[str, Observer] = {}
        self._shown: set[int] = set()
        self._newest: Snapshot | None = None
        self._thread: threading.Thread | None = None

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._factories)

    def __enter__(self) -> Self:
        return self

    def update(self, snapshot: Snapshot) -> None:
        """Show the new trials of the tables, and return at once.

        While observers are busy, the next update shows more: newer tables hold all that older ones did.
        """
        self._newest = snapshot
        if self._factories and not (self._thread is not None and self._thread.is_alive()):
            self._start(closes=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._factories or self._newest is None:
            return
        if self._waited():
            self._start(closes=True)
            self._waited()

    def _start(self, closes: bool) -> None:
        assert self._newest is not None
        self._thread = threading.Thread(target=self._show, args=(self._newest, closes), name="observers", daemon=True)
        self._thread.start()

    def _waited(self) -> bool:
        """Wait for the thread, and return whether it has ended."""
        if self._thread is not None:
            self._thread.join(self._end_seconds)
            if self._thread.is_alive():
                _warn("%s: not waited for any longer", ", ".join(self._factories))
                return False
        return True

    def _show(self, snapshot: Snapshot, closes: bool) -> None:
        trials = snapshot.trials
        new = trials[~trials["trial"].isin(self._shown)]
        rows = _rows(new)
        for name in list(self._factories):
            try:
                if name not in self._observers:
                    self._observers[name] = self._factories[name](dict(snapshot.facts), self._settings)
                if rows:
                    self._observers[name].trials(rows)
                if closes:
                    self._observers[name].close(_rows(snapshot.front))
            except Exception as error:  # a user's code can raise anything
                del self._factories[name]
                _warn("%s failed and is not called again: %s: %s", name, type(error).__name__, _line(error))
        self._shown |= set(new["trial"].astype(int))


def _rows(table: pd.DataFrame) -> list[Row]:
    rows: list[dict[str, Any]] = [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
    return list(rows)


def _line(error: Exception) -> str:
    return first_line(error, redacted(error))


def _warn(text: str, *words: str) -> None:
    logging.getLogger("stepfront").warning(f"the observer {text}", *words)
