"""Count what this process changes on the disk below a folder, and kill it or fill its disk at one of these events.

An event is a file that is opened for writing, renamed, linked or deleted, a folder that is made or deleted, and a
transaction of a database that is about to be committed.  Python reports all but the last to audit hooks; what is lost
with a process is therefore lost between two events.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Fault = Literal["killed", "disk full"]

_CHANGES = {"os.rename": 2, "os.link": 2, "os.symlink": 2, "os.remove": 1, "os.mkdir": 1, "os.rmdir": 1}
"""Audit events, and how many of their first arguments are paths."""

_NEED_SPACE = ("open", "os.mkdir", "os.link", "os.symlink", "commit")


@dataclass
class Watch:
    """Events below `folder` until now; at the event of number `at`, the fault begins.  0: it never does."""

    folder: Path
    fault: Fault
    at: int = 0
    events: int = 0
    process: int = field(default_factory=os.getpid)


_watch: Watch | None = None
_installed = False
_counting = threading.RLock()


@contextlib.contextmanager
def watching(watch: Watch) -> Iterator[Watch]:
    """Count the events of the block, of all its threads.

    `killed` ends this process at once, as SIGKILL does.  `disk full` refuses what needs space, from its event on.
    """
    global _watch
    _install()
    _watch = watch
    try:
        yield watch
    finally:
        _watch = None


def _install() -> None:
    """Add the hooks, once per process: audit hooks can't be removed."""
    global _installed
    if not _installed:
        from sqlalchemy import event
        from sqlalchemy.engine import Engine

        sys.addaudithook(_audit)
        event.listen(Engine, "commit", lambda connection: _happens("commit"))
        _installed = True


def _audit(name: str, arguments: tuple[Any, ...]) -> None:
    watch = _watch
    if watch is None or (name != "open" and name not in _CHANGES):
        return
    if name == "open" and not _writes(*arguments[1:3]):
        return
    if any(_is_below(path, watch.folder) for path in arguments[: _CHANGES.get(name, 1)]):
        _happens(name)


def _writes(mode: object, flags: object) -> bool:
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _is_below(path: object, folder: Path) -> bool:
    if not isinstance(path, str | bytes | os.PathLike):
        return False  # an open file's number
    text = os.fsdecode(path)
    # shutil.rmtree names files relative to a folder that it holds open.
    return not os.path.isabs(text) or os.path.abspath(text).startswith(f"{folder}{os.sep}")


def _happens(name: str) -> None:
    with _counting:
        watch = _watch
        if watch is None or watch.process != os.getpid():
            return
        watch.events += 1
        begun = watch.at and watch.events >= watch.at
        if begun and watch.fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if begun and name in _NEED_SPACE:
            raise _full(name)


def _full(name: str) -> Exception:
    if name != "commit":
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    from sqlalchemy.exc import OperationalError

    return OperationalError("COMMIT", {}, sqlite3.OperationalError("database or disk is full"))
