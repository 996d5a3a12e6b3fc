"""One process at a time: the lock names its holder, waits when asked to, and ends with the process that held it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from stepfront.search.storage.lock import InUseError, clear_directory, directory_lock, is_in_use

HOLD = """
import sys, pathlib
from stepfront.search.storage.lock import directory_lock
with directory_lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a process that holds the lock of a directory until it is killed."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_holder_is_named_at_every_attempt_and_killed_it_leaves_the_lock_free(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    for _ in range(2):
        with (
            pytest.raises(InUseError, match=f"in use by another stepfront \\(process {holder.pid}\\)"),
            directory_lock(tmp_path),
        ):
            pass
    holder.kill()
    holder.wait()
    with directory_lock(tmp_path):
        pass


def test_a_lock_is_waited_for(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    assert holder.poll() is None
    threading.Timer(0.3, holder.kill).start()
    with directory_lock(tmp_path, wait_seconds=60):
        assert holder.wait(60) != 0  # it was killed, and held the lock until then


def test_a_look_at_the_lock_keeps_nobody_from_taking_it(tmp_path: Path) -> None:
    with directory_lock(tmp_path):
        pass
    (tmp_path / ".lock.holder").write_text(f"{2**22 + 1}\n")  # left by a killed process: Linux numbers none so high
    look = FileLock(tmp_path / "lock", thread_local=False)
    look.acquire()  # as is_in_use does, which names no holder
    threading.Timer(0.2, look.release, [True]).start()
    with directory_lock(tmp_path):
        assert is_in_use(tmp_path)


def test_a_directory_is_cleared_of_all_but_its_lock(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "file").write_text("1")
    (tmp_path / "file").write_text("1")
    (tmp_path / "kept").write_text("1")
    with directory_lock(tmp_path):
        clear_directory(tmp_path, kept=["kept"])
        assert (tmp_path / "kept").exists()
        clear_directory(tmp_path)
        with pytest.raises(InUseError, match=r"process \d+"), directory_lock(tmp_path):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
