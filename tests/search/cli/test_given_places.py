"""A settings file in the place of a search, and a run in the place of a settings file: one line says what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepfront.files import read_json, write_json
from stepfront.search.records.run_directory import find_search
from tests.made_up_run import write_made_up_run
from tests.search.cli.test_cli import call


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a run with a search and a supernet; its settings are in mine.yaml and those of no run in new.yaml."""
    monkeypatch.chdir(tmp_path)
    write_made_up_run(tmp_path / "runs", "mine")
    write_json(Path("runs/mine/supernet/supernet.json"), {})
    for folder in ("net", "empty"):
        (tmp_path / "runs" / folder / "supernet").mkdir(parents=True)
    write_json(Path("runs/net/supernet/supernet.json"), {})
    Path("runs/net/supernet/settings.yaml").write_text("name: net\n")
    for name in ("mine", "new"):
        Path(f"{name}.yaml").write_text(f"name: {name}\n")
    return Path("runs/mine")


WRONG = {
    ("search", "runs/mine"): "runs/mine is a run, not a settings file; continue it with `stepfront resume runs/mine`",
    ("train", "runs/mine/search"): "continue it with `stepfront resume runs/mine/search`",
    ("submit", "runs/net"): "give its own: runs/net/supernet/settings.yaml",
    ("search", "runs"): "runs is a directory, not a settings file; give one such as configs/digits.yaml",
    ("front", "mine.yaml"): "mine.yaml is a settings file; its run is runs/mine: stepfront front runs/mine",
    ("compare", "runs/mine", "mine.yaml"): "its run is runs/mine: stepfront compare runs/mine",
    ("resume", "new.yaml"): "its run runs/new has no search yet; begin one with: stepfront search new.yaml",
    ("front", "runs/mine/supernet"): "runs/mine/supernet is a supernet, not a search; its run is runs/mine",
    ("resume", "runs/net"): "no search yet; begin one with: stepfront search runs/net/supernet/settings.yaml",
    ("front", "runs/empty"): "no search in runs/empty",
}


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_what_was_meant_is_said(words: tuple[str, ...], run: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    code, _, error = call(monkeypatch, capsys, *words)
    assert (code, error.count("\n")) == (2, 1)
    assert WRONG[words] in error


def test_a_finished_search_says_so_when_it_is_resumed(run: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    for step in ("search_step", "publish_step"):
        monkeypatch.setattr(f"stepfront.search.cli.runs.{step}", lambda *given: None)
    assert "finished" not in call(monkeypatch, capsys, "resume", str(run))[1]
    facts = run / "search" / "search.json"
    write_json(facts, read_json(facts, "facts") | {"finished": "2026-01-01T00:00:00+00:00"})
    code, shown, _ = call(monkeypatch, capsys, "resume", str(run))
    assert (code, shown.count("finished already")) == (0, 1)
    assert shown.endswith("finished with 8 trials; for more: stepfront extend runs/mine --trials N\n")


@pytest.mark.parametrize("file", ["trials.parquet", "front.parquet", "search.json"])
def test_a_hint_to_repair_names_the_search(file: str, run: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    search = find_search(run)[0]
    (search / file).write_bytes(b"torn")
    assert f"`stepfront doctor {search} --repair`" in call(monkeypatch, capsys, "report", str(run))[2]
