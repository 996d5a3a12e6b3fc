"""Searches whose driver was killed: the verbs that read them say so in one line, with what continues them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepfront.file_store import FileStore
from stepfront.files import read_json, write_json
from stepfront.search.storage.lease import LEASE, has_lease
from stepfront.search.storage.lock import directory_lock
from tests.made_up_run import write_made_up_run
from tests.search.cli.test_cli import call


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """Return a run whose search has tables, and neither an end nor a driver."""
    return write_made_up_run(tmp_path / "runs", "killed")


def finish(run: Path) -> None:
    facts = run / "search" / "search.json"
    write_json(facts, read_json(facts, "facts") | {"finished": "2026-01-01T00:00:00+00:00"})


@pytest.mark.parametrize("verb", ["front", "report"])
def test_an_interrupted_search_is_said_once_with_what_continues_it(
    verb: str, killed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"this search was interrupted after 8 trials; continue it with: stepfront resume {killed}\n"
    code, shown, error = call(monkeypatch, capsys, verb, str(killed))
    assert (code, shown.count(line), shown.count("was interrupted"), error) == (0, 1, 1, "")
    with directory_lock(killed / "search"):  # a driver is at work
        code, shown, _ = call(monkeypatch, capsys, verb, str(killed))
    assert (code, shown.count("was interrupted")) == (0, 0)
    finish(killed)
    code, shown, _ = call(monkeypatch, capsys, verb, str(killed))
    assert (code, shown.count("was interrupted")) == (0, 0)


def test_json_on_stdout_stays_json(
    killed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown, error = call(monkeypatch, capsys, "front", str(killed), "--json")
    assert (code, len(json.loads(shown)) > 0) == (0, True)
    assert error.count("stepfront resume") == 1


def test_a_list_names_what_continues_an_interrupted_run(
    killed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(write_made_up_run(killed.parent, "done"))
    _, shown, _ = call(monkeypatch, capsys, "list", str(killed.parent))
    assert shown.count("stepfront resume") == 1
    assert f"killed was interrupted; continue it with: stepfront resume {killed}" in shown


@pytest.mark.parametrize("place", [".", "search"])
@pytest.mark.parametrize("verb", ["front", "report", "export"])
def test_a_search_without_results_is_no_missing_search(
    verb: str, place: str, killed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (killed / "search" / "search.json").unlink()
    words = [verb, str(killed / place), *(["--out", str(killed / "out")] if verb == "export" else [])]
    code, _, error = call(monkeypatch, capsys, *words)
    assert (code, error.count("\n")) == (2, 1)
    assert "was interrupted before its first table; continue it with: stepfront resume" in error
    with directory_lock(killed / "search"):
        assert "has no results yet; wait for the driver" in call(monkeypatch, capsys, *words)[2]


def test_a_driver_at_a_uri_is_known_by_its_lease(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}"
    assert not has_lease(uri)
    FileStore(uri).write_json(LEASE, {"copy": "x", "until": 1.0})
    assert not has_lease(uri)  # it died
    FileStore(uri).write_json(LEASE, {"copy": "x", "until": 1e11})
    assert has_lease(uri)
