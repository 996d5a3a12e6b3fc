"""Write a search to MLflow in a process of its own while the search runs.

A thread of the driver would hold the interpreter, and workers would wait for their next plan meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from stepfront.environment import SOURCE_ROOT
from stepfront.search.config import RunSettings
from stepfront.search.mlflow_runs.written import WrittenSearch
from stepfront.search.records.run_directory import resume_settings
from stepfront.search.tracking.search_mirror import SearchMirror
from stepfront.tables.search_tables import read_snapshot

MAX_WAIT_SECONDS = 60.0
"""Between attempts to write to a server that does not answer."""


class MlflowProcess:
    """Start and notify the writer process; no method but `stop` makes the search wait.

    The tables on the disk are its queue, so nothing is lost when it is killed; the next update starts a new one.
    """

    def __init__(self, settings: RunSettings, directory: Path) -> None:
        self._directory, self._enabled = directory, settings.tracking.uri is not None
        self._process: subprocess.Popen[bytes] | None = None

    def update(self) -> None:
        """Notify the process that the tables have changed, and return at once."""
        if not self._enabled:
            return
        with contextlib.suppress(OSError):  # no memory for a process, or a broken pipe: the next update tries again
            if self._process is None or self._process.poll() is not None:
                self._process = self._start()
            assert self._process.stdin is not None
            os.write(self._process.stdin.fileno(), b"\n")

    def waiting(self, trials: int) -> int:
        """Return how many of `trials` trials MLflow lacks, according to its last note."""
        return trials - len(WrittenSearch.read(self._directory).children) if self._enabled else 0

    def stop(self, timeout: float = 10) -> None:
        """End the process after the write in progress, or after `timeout` seconds.

        The end of the search writes what MLflow lacks by then.
        """
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
            start_new_session=True,  # Ctrl-C is for the driver
        )


def main(directory: Path) -> None:
    """Write what MLflow lacks after each byte from the driver, and end when the driver does: that closes the pipe."""
    os.nice(19)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    mirror = SearchMirror(resume_settings(directory), directory)
    while _wait_for_driver(None):
        wait = 1.0
        # The server does not answer, or the tables were being written: try again with the newest tables.
        while not mirror.write(lambda: read_snapshot(directory)):
            if not _wait_for_driver(wait):
                return
            wait = min(MAX_WAIT_SECONDS, 2 * wait)


def _wait_for_driver(seconds: float | None) -> bool:
    """Wait for a byte, `seconds` at most; return False when the driver has ended."""
    ready = select.select([0], [], [], seconds)[0]
    return not ready or os.read(0, 4096) != b""


if __name__ == "__main__":
    main(Path(sys.argv[1]))
