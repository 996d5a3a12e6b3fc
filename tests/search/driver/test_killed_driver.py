"""A driver that is interrupted and killed in the middle of a search."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from stepfront.search.config import load_settings
from stepfront.search.driver.search import run_search
from tests.search.conftest import TINY, Silent


@pytest.mark.timeout(1500)  # two starts of a driver and its workers
def test_a_driver_interrupted_and_killed_at_any_moment_is_taken_up_again(fresh: Path) -> None:
    """Ctrl-C, then SIGKILL in mid-search, and the same search again: no evaluation lost, none counted twice."""
    config = fresh / "tiny.json"  # YAML reads JSON
    own = {"directory": str(fresh), "tracking": {"uri": None}, "budget": {"trials": 30}, "space": {"stages": 6}}
    config.write_text(json.dumps(TINY | own))
    command = [sys.executable, "-m", "stepfront", "search", str(config), "--set", "workers.count=1"]
    database, log = fresh / "tiny" / "search" / "study.db", fresh / "log"
    told: list[dict[int, float]] = []
    for sign in (signal.SIGINT, signal.SIGKILL):
        with open(log, "ab") as file:
            driver = subprocess.Popen(command, stdout=file, stderr=file, preexec_fn=_hear_interrupts)
        wanted = len(told[-1]) + 3 if told else 3
        deadline = time.monotonic() + 240
        while len(_finished(database)) < wanted and time.monotonic() < deadline and driver.poll() is None:
            time.sleep(0.05)
        driver.send_signal(sign)
        assert driver.wait(120) == (130 if sign == signal.SIGINT else -signal.SIGKILL), log.read_text()[-2000:]
        told.append(_finished(database))
        assert wanted <= len(told[-1]) < 30
    assert log.read_text().count("continue with: stepfront resume") == 1
    # The second driver has found what an interrupted one left.  What a killed one left needs no process to be found.
    run_search(load_settings(config, ["workers.count=1"]), False, Silent(), lambda text: None)
    trials = pd.read_parquet(fresh / "tiny" / "search" / "trials.parquet")
    assert list(trials["trial"]) == list(range(30))
    assert trials["plan"].nunique() == 30
    kept = dict(zip(trials["trial"], trials["fid"], strict=True))
    assert all(before.items() <= kept.items() for before in told)


def _hear_interrupts() -> None:
    # A test run in the background of a shell has Ctrl-C ignored, and its children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _finished(database: Path) -> dict[int, float]:
    """Return trial -> FID of what the study holds as complete."""
    import sqlite3

    query = """
        select number, value from trials join trial_values using (trial_id)
        where state = 'COMPLETE' and objective = 0"""
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            return dict(connection.execute(query).fetchall())
    except sqlite3.Error:
        return {}
