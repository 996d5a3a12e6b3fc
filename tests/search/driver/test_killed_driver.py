"""A driver that is killed in the middle of a search."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from tests.search.conftest import TINY


def test_a_driver_killed_at_any_moment_is_taken_up_again(fresh: Path) -> None:
    """SIGKILL in mid-search, then the same command: no evaluation lost, none counted twice."""
    config = fresh / "tiny.json"  # YAML reads JSON
    config.write_text(json.dumps(TINY | {"directory": str(fresh), "tracking": {"uri": None}}))
    command = [sys.executable, "-m", "stepfront", "search", str(config), "--set", "workers.count=1"]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    database = fresh / "tiny" / "search" / "study.db"
    finished = 0
    deadline = time.monotonic() + 240
    while finished < 3 and time.monotonic() < deadline and killed.poll() is None:
        time.sleep(0.05)
        finished = _finished(database)
    killed.kill()
    killed.wait()
    assert finished >= 3
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    trials = pd.read_parquet(fresh / "tiny" / "search" / "trials.parquet")
    assert list(trials["trial"]) == list(range(9))
    assert trials["plan"].nunique() == 9


def _finished(database: Path) -> int:
    import sqlite3

    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            return connection.execute("select count(*) from trials where state = 'COMPLETE'").fetchone()[0]
    except sqlite3.Error:
        return 0
