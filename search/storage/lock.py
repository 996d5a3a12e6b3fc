"""One driver a search directory: a lock that the operating system drops with the process that held it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from stepfront.errors import InputError


class InUseError(InputError):
    """Another driver is at work there."""


@contextlib.contextmanager
def directory_lock(directory: Path, name: str = "lock") -> Iterator[None]:
    """Holds DIRECTORY/NAME.  InputError when another process holds it; a killed driver leaves it free."""
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / name, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise InUseError(f"{directory} is in use by another stepfront (process {holder})") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


@contextlib.contextmanager
def waiting_lock(directory: Path, seconds: float = 600, name: str = "lock") -> Iterator[None]:
    """Holds the lock as soon as it is free.  InputError when it is not for so many seconds."""
    until = time.monotonic() + seconds
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(directory_lock(directory, name))
                break
            except InUseError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
        yield
