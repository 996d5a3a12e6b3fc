"""Run searches over a small supernet by the command that users run, and audit them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from stepfront.environment import SOURCE_ROOT
from stepfront.search.pareto import front_indices
from stepfront.search.study.optuna_storage import DATABASE_FILE

SETTINGS: dict[str, Any] = {
    "name": "faults",
    "data": {"format": "digits", "limit": 300},
    "network": {"base": 8, "multipliers": [1, 2], "widths": [0.25, 0.5, 1.0]},
    "training": {"steps": 12, "batch": 16, "warmup": 2, "held_out_images": 32},
    "features": {"name": "classifier", "classifier_epochs": 1, "examine": "skip"},
    "sampler": {"steps": 12},
    "space": {"stages": 6},
    "evaluation": {"images": 64, "batch": 64},
    "tracking": {"uri": None},
    "workers": {"count": 2},
}


SUPERNET: Path | None = None
"""A supernet of these settings if there is one; otherwise each bench trains its own in seconds."""


SOURCES = (Path(__file__).resolve().parent.parent, SOURCE_ROOT)
"""Where the processes of a bench find `benchmarks` and `stepfront`."""


@dataclass
class Row:
    """The effect of one kind of fault."""

    fault: str
    injected: int = 0
    told: int = 0
    lost: int = 0
    twice: int = 0
    recovery: list[float] = field(default_factory=list)
    notes: str = ""

    def shown(self) -> dict[str, Any]:
        """Return the row of the table."""
        seconds = f"{median(self.recovery):.1f} (most {max(self.recovery):.1f})" if self.recovery else "-"
        return {
            "fault": self.fault,
            "injected": self.injected,
            "evaluations recorded": self.told,
            "lost": self.lost,
            "counted twice": self.twice,
            "seconds to the next result": seconds,
            "": self.notes,
        }


class Bench:
    """A folder with a trained supernet, and searches in it."""

    def __init__(self, work: Path, **changes: Any) -> None:
        self.work = work
        self.started: list[subprocess.Popen[bytes]] = []
        self.config = work / "faults.json"  # YAML reads JSON
        self.config.write_text(json.dumps(SETTINGS | {"directory": str(work)} | changes))
        self.directory = work / "faults" / "search"
        self.environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, SOURCES))}
        if SUPERNET is not None:
            shutil.copytree(SUPERNET, work / "faults" / "supernet")
        else:
            self.call("train", str(self.config))

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a verb in a process of its own, which ends with the bench."""
        with open(self.work / "driver.log", "ab") as log:
            command = [sys.executable, "-m", "stepfront", *words]
            self.started.append(subprocess.Popen(command, stdout=log, stderr=log, env=self.environment))
        return self.started[-1]

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a verb to its end."""
        command = [sys.executable, "-m", "stepfront", *words]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment, timeout=600)

    def told(self) -> dict[int, tuple[str, str]]:
        """Return trial number -> (genome, values) of every complete trial, read from the database itself."""
        path = self.directory / DATABASE_FILE
        if not path.exists():
            return {}
        query = """
            select t.number, a.value_json, group_concat(v.value, ' ')
            from trials t
            join trial_user_attributes a on a.trial_id = t.trial_id and a.key = 'genome'
            join (select * from trial_values order by objective) v on v.trial_id = t.trial_id
            where t.state = 'COMPLETE' group by t.trial_id"""
        try:
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
                return {number: (genome, values) for number, genome, values in database.execute(query)}
        except sqlite3.OperationalError:
            return {}  # no tables yet

    def wait_for(self, process: subprocess.Popen[bytes], count: int, limit: float = 400) -> bool:
        """Wait until that many trials are complete; return False if the process ends before."""
        end = time.monotonic() + limit
        while len(self.told()) < count:
            if process.poll() is not None:
                return False
            if time.monotonic() > end:
                raise TimeoutError(f"{len(self.told())} of {count} trials after {limit:.0f} s")
            time.sleep(0.05)
        return True

    def audit(self, row: Row, before: dict[int, tuple[str, str]], tables: bool = True) -> None:
        """Add to the row what is missing of `before` and what is there twice; check the tables if asked to."""
        now = self.told()
        row.told = len(now)
        row.lost += sum(now.get(number) != trial for number, trial in before.items())
        genomes = [genome for genome, _ in now.values()]
        row.twice += len(genomes) - len(set(genomes))
        if tables:
            trials = pd.read_parquet(self.directory / "trials.parquet")
            complete = trials[trials["state"] == "complete"].reset_index(drop=True)
            front = pd.read_parquet(self.directory / "front.parquet")
            best = front_indices(complete[["fid", "gflops"]].to_numpy(dtype=float))
            assert set(complete["trial"]) == set(now), "the table of trials differs from the study"
            assert set(front["trial"]) == set(complete["trial"].iloc[best]), "the front is not that of the table"


@contextlib.contextmanager
def bench(**changes: Any) -> Iterator[Bench]:
    """Yield a bench in a scratch folder."""
    with tempfile.TemporaryDirectory(prefix="stepfront-faults-", ignore_cleanup_errors=True) as work:
        made = Bench(Path(work), **changes)
        try:
            yield made
        finally:
            for process in made.started:
                process.kill()
                process.wait()
