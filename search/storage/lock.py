"""Let one process at a time work in a directory; the operating system drops the lock of a process that dies."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from stepfront.errors import InputError


class InUseError(InputError):
    """Report that another process works in a directory or at a URI."""


@contextlib.contextmanager
def directory_lock(directory: Path, name: str = "lock", wait_seconds: float = 0) -> Iterator[None]:
    """Hold the lock DIRECTORY/NAME; the directory is created when missing.

    Raises InUseError, which names the other process, when the lock is not free after `wait_seconds`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    # A file of its own: some versions of filelock empty the lock's file at each attempt.
    holder = directory / f".{name}.holder"
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(FileLock(directory / name).acquire(timeout=wait_seconds))
        except Timeout:
            raise InUseError(f"{directory} is in use by another stepfront (process {_read(holder)})") from None
        held.callback(holder.unlink, missing_ok=True)
        holder.write_text(f"{os.getpid()}\n", encoding="utf-8")
        yield


def _read(holder: Path) -> str:
    try:
        return holder.read_text(encoding="utf-8").strip() or "unknown"
    except OSError:
        return "unknown"


def clear_directory(directory: Path) -> None:
    """Delete everything in a directory but the lock that its driver holds."""
    for path in directory.iterdir():
        if path.name in ("lock", ".lock.holder"):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
