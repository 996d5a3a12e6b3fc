"""MLflow's own process: it keeps up with a search, ends with its driver, and never makes it wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.tracking import made_up_search, until
from stepfront.files import write_json
from stepfront.search.config import RunSettings, save_settings, settings_from
from stepfront.search.mlflow_runs.client import make_client
from stepfront.search.mlflow_runs.written import WrittenSearch
from stepfront.search.records.run_directory import FACTS_FILE, SETTINGS_FILE
from stepfront.search.tracking.writer_process import MlflowProcess
from stepfront.tables.parquet import write_table
from stepfront.tables.schema import FRONT, PROGRESS, TRIALS
from stepfront.tables.search_tables import Snapshot


@pytest.fixture
def settings(tmp_path: Path, empty_store: Path) -> RunSettings:
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    found = settings_from({}, [f"directory={tmp_path}", "name=made-up", f"tracking.uri={uri}"])
    found.search_directory.mkdir(parents=True)
    save_settings(found, found.search_directory / SETTINGS_FILE)
    return found


def lay(snapshot: Snapshot, directory: Path) -> None:
    """Write the tables as a driver leaves them."""
    for name, table in ((TRIALS, snapshot.trials), (FRONT, snapshot.front), (PROGRESS, snapshot.progress)):
        write_table(table, directory / name)
    write_json(directory / FACTS_FILE, dict(snapshot.facts))


def eventually(so: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not so():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_it_writes_what_the_tables_have_and_starts_again_when_it_was_killed(settings: RunSettings) -> None:
    directory, whole = settings.search_directory, made_up_search(12)
    process = MlflowProcess(settings, directory)
    assert process.waiting(12) == 12
    lay(until(whole, 6), directory)
    process.update()
    eventually(lambda: process.waiting(6) == 0)
    assert process._process is not None
    os.kill(process._process.pid, signal.SIGKILL)
    process._process.wait()
    lay(whole, directory)
    process.update()
    eventually(lambda: process.waiting(12) == 0)
    process.stop()
    written = WrittenSearch.read(directory)
    runs = make_client(settings.tracking.uri).search_runs([written.experiment_id], "tags.kind = 'trial'")
    assert sorted(int(run.data.tags["trial"]) for run in runs) == list(range(12))


def test_it_ends_with_its_driver_however_that_ends(settings: RunSettings) -> None:
    script = (
        "import sys, time; from pathlib import Path; from stepfront.search.config import load_settings;"
        "from stepfront.search.tracking.writer_process import MlflowProcess;"
        "d = Path(sys.argv[1]); p = MlflowProcess(load_settings(d / 'settings.yaml'), d); p.update();"
        "print(p._process.pid, flush=True); time.sleep(600)"
    )
    lay(made_up_search(3), settings.search_directory)
    command = [sys.executable, "-c", script, str(settings.search_directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        writer = int(driver.stdout.readline())
        assert Path(f"/proc/{writer}").exists()
        driver.kill()

    def gone() -> bool:
        stat = Path(f"/proc/{writer}/stat")
        return not stat.exists() or stat.read_text().split()[2] == "Z"

    eventually(gone)


def test_a_server_that_is_away_makes_nobody_wait(settings: RunSettings) -> None:
    away = settings.model_copy(update={"tracking": settings.tracking.model_copy(update={"uri": "http://127.0.0.1:9"})})
    save_settings(away, away.search_directory / SETTINGS_FILE)
    lay(made_up_search(3), away.search_directory)
    process = MlflowProcess(away, away.search_directory)
    begin = time.monotonic()
    for _ in range(200):
        process.update()
    process.stop(timeout=0)
    assert time.monotonic() - begin < 30  # nothing waits: one attempt at the server takes seconds, and these are 200
    assert process.waiting(3) == 3
    off = settings.model_copy(update={"tracking": settings.tracking.model_copy(update={"uri": None})})
    silent = MlflowProcess(off, off.search_directory)
    silent.update()
    assert silent._process is None
    silent.stop()
