"""The verbs for jobs: what they print for people, and what for scripts."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from stepfront.search.jobs import client
from stepfront.search.jobs import submit as submission
from tests.search.cli.test_cli import call

RUNNING = SimpleNamespace(
    submission_id="digits-1",
    status="RUNNING",
    start_time=1_000_000,
    end_time=1_090_000,
    metadata={"directory": "/shared/runs/digits"},
    message="it runs, last available logs: a long one",
)
WAITING = SimpleNamespace(
    submission_id="digits-2", status="PENDING", start_time=None, end_time=None, metadata=None, message=None
)


@pytest.fixture(autouse=True)
def jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Return a cluster with two jobs."""
    monkeypatch.setattr(client, "list_jobs", lambda address: [RUNNING, WAITING])
    monkeypatch.setattr(client, "job_info", lambda address, job: RUNNING)
    monkeypatch.setattr(client, "job_log", lambda address, job: "first\nlast  line\n\n")


def test_status_is_a_line_per_job(monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    code, shown, _ = call(monkeypatch, capsys, "status")
    assert code == 0
    assert [line.rstrip() for line in shown.splitlines()] == [
        "job       status   running for  directory",
        "digits-1  RUNNING      1.5 min  /shared/runs/digits",
        "digits-2  PENDING    not begun",
    ]


@pytest.mark.parametrize(("state", "times"), [("RUNNING", 0), ("SUCCEEDED", 0), ("FAILED", 1), ("STOPPED", 1)])
def test_a_job_that_ended_early_is_said_to_continue(state: str, times: int, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    job = SimpleNamespace(**vars(RUNNING) | {"status": state})
    monkeypatch.setattr(client, "job_info", lambda address, job_id: job)
    code, shown, _ = call(monkeypatch, capsys, "status", "digits-1")
    assert (code, shown.count("the same `stepfront submit` continues it")) == (0, times)


def test_status_as_json(monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    code, shown, error = call(monkeypatch, capsys, "status", "--json")
    assert (code, error) == (0, "")
    first = {
        "job": "digits-1",
        "status": "RUNNING",
        "minutes": 1.5,
        "directory": "/shared/runs/digits",
        "message": "it runs",
    }
    second = {"job": "digits-2", "status": "PENDING", "minutes": None, "directory": "", "message": ""}
    assert json.loads(shown) == [first, second]
    shown = call(monkeypatch, capsys, "status", "digits-1", "--json")[1]
    assert json.loads(shown) == first | {"last_line": "last line"}


def test_submit_as_json(tmp_path: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    config = tmp_path / "c.yaml"
    config.write_text("{name: digits, directory: /shared/runs}")
    done = submission.Submitted("digits-3", ("stepfront/", "job.yaml"), 512)
    monkeypatch.setattr(submission, "submit_job", lambda *given: done)
    code, shown, error = call(monkeypatch, capsys, "submit", str(config), "--address", "http://head:8265", "--json")
    assert code == 0
    assert json.loads(shown) == {
        "job": "digits-3",
        "address": "http://head:8265",
        "directory": "/shared/runs/digits",
        "sent": ["stepfront/", "job.yaml"],
        "bytes": 512,
    }
    assert "stepfront status digits-3" in error
