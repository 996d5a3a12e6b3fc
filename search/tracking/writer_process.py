"""MLflow's own process: a search directory in; MLflow kept in line with its tables while the search runs.

In a thread of the driver the same writing held the interpreter, and workers waited for their next plan meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from stepfront import SOURCE_ROOT
from stepfront.search.config import RunSettings
from stepfront.search.records.run_directory import resume_settings
from stepfront.search.tracking.mirror import Mirror, read_state
from stepfront.tables.search_tables import read_snapshot

_LONGEST_WAIT = 60.0


class MlflowProcess:
    """The driver's end: told after each writing of the tables, it never makes the search wait.

    The tables on the disk are its queue, so nothing is lost when it is killed; the next call starts it anew.
    """

    def __init__(self, settings: RunSettings, directory: Path) -> None:
        self._directory, self._wanted = directory, settings.tracking.uri is not None
        self._process: subprocess.Popen[bytes] | None = None

    def update(self) -> None:
        """Says that the tables have grown; returns at once."""
        if not self._wanted:
            return
        with contextlib.suppress(OSError):  # no room for a process, or a broken pipe: the next writing tries again
            if self._process is None or self._process.poll() is not None:
                self._process = self._start()
            assert self._process.stdin is not None
            os.write(self._process.stdin.fileno(), b"\n")

    def waiting(self, trials: int) -> int:
        """How many of so many trials MLflow does not hold yet, as of its last note."""
        return trials - len(read_state(self._directory).children) if self._wanted else 0

    def stop(self, timeout: float = 10) -> None:
        """Ends it once its write in progress is done; what MLflow then lacks is left to the search's end."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _start(self) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(filter(None, [str(SOURCE_ROOT), os.environ.get("PYTHONPATH", "")]))
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "stepfront.search.tracking.writer_process", str(self._directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is the driver's
        )


def main(directory: Path) -> None:
    """Writes what MLflow lacks whenever a byte comes in; ends with the driver, whose pipe closes however it ends."""
    os.nice(19)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    mirror = Mirror(resume_settings(directory), directory)
    while _goes_on(None):
        wait = 1.0
        # Where the server is away, or the tables were being written just now: again, with the newest there are.
        while not mirror.write(lambda: read_snapshot(directory)):
            if not _goes_on(wait):
                return
            wait = min(_LONGEST_WAIT, 2 * wait)


def _goes_on(seconds: float | None) -> bool:
    """Waits to be told, `seconds` at most; False when the driver is gone."""
    ready = select.select([0], [], [], seconds)[0]
    return not ready or os.read(0, 4096) != b""


if __name__ == "__main__":
    main(Path(sys.argv[1]))
