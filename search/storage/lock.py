"""Let one process at a time work in a directory; the operating system drops the lock of a process that dies."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from stepfront.beside import is_alive
from stepfront.errors import InputError

LOOK_SECONDS = 1.0
"""What `is_in_use` takes a lock for is over by then: it holds the lock for an instant, and leaves no name."""


class InUseError(InputError):
    """Report that another process works in a directory or at a URI."""


@contextlib.contextmanager
def directory_lock(directory: Path, name: str = "lock", wait_seconds: float = 0) -> Iterator[None]:
    """Hold the lock DIRECTORY/NAME; the directory is created when missing.

    Raises InUseError, which names the other process, when the lock is not free after `wait_seconds`.  Where it names
    none that lives here, it waits LOOK_SECONDS at least.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"can't make the folder {directory}: {error.strerror or error}") from None
    # A file of its own: some versions of filelock empty the lock's file at each attempt.
    holder = directory / f".{name}.holder"
    wait_seconds = max(wait_seconds, 0 if _holder_lives(holder) else LOOK_SECONDS)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(FileLock(directory / name).acquire(timeout=wait_seconds))
        except Timeout:
            raise InUseError(f"{directory} is in use by another stepfront (process {_read(holder)})") from None
        except OSError as error:
            raise InputError(
                f"can't lock {directory / name}: {error.strerror or error}; delete it where it is no file, or give a "
                "folder that can be written"
            ) from None
        held.callback(_remove, holder)
        with contextlib.suppress(OSError):  # only messages need it
            holder.write_text(f"{os.getpid()}\n", encoding="utf-8")
        yield


def is_in_use(directory: Path, name: str = "lock") -> bool:
    """Return whether a process holds the lock of a directory; nothing is made where there is none."""
    if not (directory / name).is_file():
        return False
    try:
        with FileLock(directory / name).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a folder of another user, which can't be locked
        return False


def _remove(holder: Path) -> None:
    with contextlib.suppress(OSError):
        holder.unlink()


def _holder_lives(holder: Path) -> bool:
    pid = _read(holder)
    return pid.isdigit() and is_alive(int(pid))


def _read(holder: Path) -> str:
    try:
        return holder.read_text(encoding="utf-8").strip() or "unknown"
    except OSError:
        return "unknown"


def clear_directory(directory: Path, kept: Collection[str] = ()) -> None:
    """Delete everything in a directory but the lock that its driver holds and the files named in `kept`."""
    for path in directory.iterdir():
        if path.name in ("lock", ".lock.holder", *kept):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
