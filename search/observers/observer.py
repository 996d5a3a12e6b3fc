"""Define what an observer of a search is: a part of the user's own that is shown trials as they finish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from stepfront.plugins import OBSERVERS

Row = Mapping[str, Any]
"""A row of trials.parquet or front.parquet by column (docs/tables.md)."""


class Observer(Protocol):
    """A logger of the user.

    It is called in a thread of the driver, one call at a time.  A call that raises ends the observer, not the search.
    """

    def trials(self, rows: Sequence[Row]) -> None:
        """Take the trials that finished since the last call.

        The first call of a process has all trials so far, those from before a resume included.
        """

    def close(self, front: Sequence[Row]) -> None:
        """Take the front, the cheapest point first; the search has ended, or was interrupted."""


class ObserverFactory(Protocol):
    """A function that makes the observer of a search."""

    def __call__(self, facts: Mapping[str, Any], settings: Mapping[str, Any]) -> Observer:
        """Return the observer; `facts` is search.json, whose `search_id` stays the same when a search is resumed."""
        ...


def find_observer(name: str) -> ObserverFactory:
    """Return how to make an observer: an entry point's, or that of an import path.

    Raises InputError when there is none.
    """
    return cast(ObserverFactory, OBSERVERS.load(name))
