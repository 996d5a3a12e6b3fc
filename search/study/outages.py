"""Survive outages of a study's storage: repeat an operation while the storage is locked or unreachable."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from stepfront.addresses import redacted
from stepfront.errors import InputError, first_line

PATIENCE = 120.0
"""Seconds to wait for a storage that is locked or unreachable."""

T = TypeVar("T")


def retry_during_outage(action: Callable[[], T], patience: float = PATIENCE) -> T:
    """Return the result of `action`; repeat it for `patience` seconds while the storage is locked or unreachable.

    `action` must be safe to repeat: a write may have succeeded although its answer was lost.  Raises InputError when
    the storage stays away, or at once where waiting can't help, as with a full disk.
    """
    wait, end, warned = 0.25, time.monotonic() + patience, False
    while True:
        try:
            return action()
        except Exception as error:
            if not _is_storage_error(error):
                raise
            if not _is_outage(error):
                raise InputError(f"the search's storage can't be written: {root_cause(error)}; {_KEPT}") from error
            if time.monotonic() + wait > end:
                raise InputError(
                    f"the search's storage did not answer for {patience:.0f} s: {root_cause(error)}; {_KEPT}"
                ) from error
            if not warned:
                logging.getLogger("stepfront").warning(
                    "the search's storage is locked or unreachable (%s); waiting up to %.0f s",
                    root_cause(error),
                    patience,
                )
                warned = True
            time.sleep(wait)
            wait = min(5.0, 2 * wait)


def root_cause(error: BaseException) -> str:
    """Return the first line of the error that caused all others, without passwords."""
    return redacted(first_line(chain(error)[-1]))


def chain(error: BaseException | None) -> list[BaseException]:
    """Return an error, its cause, the cause of that, and so on."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


_KEPT = "every recorded result is kept, and `stepfront resume` continues the search"

_OUTAGES = (
    "locked",
    "busy",
    "connection",
    "could not connect",
    "starting up",
    "shutting down",
    "timeout",
    "timed out",
    "recovery mode",
)
"""Words in the errors of SQLite, PostgreSQL and the network that say a later attempt may succeed."""


def _is_storage_error(error: BaseException) -> bool:
    modules = {type(one).__module__.partition(".")[0] for one in chain(error)}
    return bool(modules & {"sqlalchemy", "sqlite3", "psycopg"}) or any(isinstance(one, OSError) for one in chain(error))


def _is_outage(error: BaseException) -> bool:
    text = " ".join(str(one).lower() for one in chain(error))
    return any(word in text for word in _OUTAGES)
