"""Logs of groups where MLflow hangs: the whole call waits once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from stepfront.search.adaptation import group_logs
from stepfront.search.adaptation.group_logs import GroupLogs
from stepfront.search.mlflow_runs import background
from stepfront.search.tracking.training_log import TRAINING_TABLE
from stepfront.tables.parquet import write_table
from tests.search.conftest import tiny_settings


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the server of MLflow answer nothing until the test has ended."""
    ending = threading.Event()

    def hang(uri: str) -> Any:
        ending.wait(30)
        raise ConnectionError("the test has ended")

    monkeypatch.setattr(background, "make_writing_client", hang)
    yield
    ending.set()


def test_a_server_that_hangs_is_waited_for_once_and_reported_once(
    hanging: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = tiny_settings(tmp_path, "tracking.uri=http://127.0.0.1:9")
    given: list[float] = []
    wait = background.BackgroundWriter.wait

    def recorded(writer: Any, timeout: float) -> str:
        given.append(timeout if writer.busy else 0.0)
        return wait(writer, timeout)

    monkeypatch.setattr(background.BackgroundWriter, "wait", recorded)
    data: Any = SimpleNamespace()
    logs = GroupLogs(seconds=0.2)
    for number in range(4):
        group = tmp_path / f"group-{number}"
        group.mkdir()
        write_table(pd.DataFrame([{"step": 2, "loss": 0.5}]), group / TRAINING_TABLE)
        logs.end(logs.open(settings, data, group))
    assert sum(given) == pytest.approx(0.2, abs=0.05)
    assert [record.message.startswith("MLflow was not written") for record in caplog.records] == [True]
    assert "is too slow" in caplog.text


def test_a_failure_that_is_quick_leaves_time_for_the_other_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(group_logs.time, "monotonic", lambda: now[0])
    given: list[float] = []

    def ending(seconds: float, problem: str) -> Any:
        def wait(timeout: float) -> str:
            given.append(timeout)
            now[0] += min(seconds, timeout)
            return problem

        return wait

    logs = GroupLogs(seconds=120)
    logs.wait(ending(5, "refused"))
    logs.wait(ending(60, ""))  # slow, and written
    logs.wait(ending(500, "too slow"))
    logs.wait(ending(500, "too slow"))
    assert given == [120, 115, 115, 0]
