"""Call a verb in a process of its own, which a fault may end, without importing everything anew."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.kills.file_events import Watch, watching
from stepfront.search.cli.main import main

LIMIT_SECONDS = 600.0


HEAVY = (
    *(
        "stepfront.search.cli.main",
        "stepfront.search.api",
        "stepfront.search.driver.train",
        "stepfront.search.checks.integrity",
    ),
    *("stepfront.search.driver.publish", "stepfront.search.export.program", "stepfront.search.export.registry"),
    *("stepfront.search.scoring.confirm", "stepfront.search.scoring.baselines", "stepfront.search.driver.fit"),
    *("stepfront.dashboards.report", "stepfront.trainers.interop.unet2d", "stepfront.trainers.interop.ddsm"),
    *("mlflow", "mlflow.pyfunc", "mlflow.models", "mlflow.store.tracking.sqlalchemy_store", "alembic.command"),
    *("mlflow.store.model_registry.sqlalchemy_store", "plotly.graph_objects", "matplotlib.pyplot", "sklearn.datasets"),
)
"""Modules whose import takes longer than most verbs."""


@dataclass
class Ended:
    """How a process ended: its exit code (-9: killed), its events, what it printed, and its traceback if it had one."""

    code: int
    events: int
    out: str
    error: str

    @property
    def traceback(self) -> str:
        """What it printed, where that has a traceback; else empty."""
        return self.error if "Traceback" in self.error else ""


def import_heavy() -> None:
    """Import what verbs import where they use it, so that no fork has to."""
    for module in HEAVY:
        importlib.import_module(module)


def call_forked(words: Sequence[str], watch: Watch, scratch: Path) -> Ended:
    """Run `stepfront WORDS` in a fork of this process, with the fault of the watch.

    `scratch` is a folder outside of the watched one, for what the process prints.  Raises TimeoutError when it hangs.
    """
    out, error, count = (scratch / name for name in ("stdout", "stderr", "events"))
    count.unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads; the child needs none of them
        child = os.fork()
    if child == 0:
        _run(words, watch, out, error, count)
    code = _wait(child)
    events = json.loads(count.read_text()) if count.exists() else watch.at
    return Ended(code, events, out.read_text(), error.read_text())


def _run(words: Sequence[str], watch: Watch, out: Path, error: Path, count: Path) -> None:
    """Be the child: run the command and end this process."""
    code = 1
    try:
        with open(out, "w") as stdout, open(error, "w") as stderr:
            os.dup2(stdout.fileno(), 1)  # libraries and further processes print here, too
            os.dup2(stderr.fileno(), 2)
            sys.stdout, sys.stderr, sys.argv = stdout, stderr, ["stepfront", *words]
            watch.process = os.getpid()
            code = _call(watch)
        count.write_text(json.dumps(watch.events))
    finally:
        os._exit(code)


def _call(watch: Watch) -> int:
    try:
        with watching(watch):
            main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _wait(child: int) -> int:
    end = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise TimeoutError(f"a call took longer than {LIMIT_SECONDS:.0f} s")
