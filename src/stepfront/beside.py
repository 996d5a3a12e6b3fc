"""Name what is being written beside its place, and delete what killed processes left there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import socket
from pathlib import Path

_PART = re.compile(r"\..+\.([0-9a-f]{6})-(\d+)\.(part|old)(-journal|-wal|-shm)?")
"""Names of what is being written; the endings are those of SQLite's own files beside a database."""


def part_of(path: Path, ending: str = "part") -> Path:
    """Return the hidden place beside `path` in which this process writes it: .NAME.HOST-PID.part."""
    return path.with_name(f".{path.name[:200]}.{_host()}-{os.getpid()}.{ending}")


def remove_left_parts(path: Path) -> None:
    """Delete what processes of this machine that have died left beside `path`."""
    start = f".{path.name[:200]}."
    with contextlib.suppress(OSError):
        for left in [one for one in os.scandir(path.parent) if one.name.startswith(start)]:
            match = _PART.fullmatch(left.name)
            if match is not None and match[1] == _host() and not is_alive(int(match[2])):
                if left.is_dir(follow_symlinks=False):
                    shutil.rmtree(left.path, ignore_errors=True)
                else:
                    os.unlink(left.path)


def is_part(name: str) -> bool:
    """Return whether a file's or folder's name is that of something which is being written."""
    return _PART.fullmatch(name) is not None


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]


def is_alive(pid: int) -> bool:
    """Return whether this machine has a process of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
