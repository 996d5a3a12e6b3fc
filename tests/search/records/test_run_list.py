"""`stepfront list`: the states of runs, read without changing anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.tracking import made_up_search
from stepfront.checksums import begin_record, record_as_it_is
from stepfront.errors import InputError
from stepfront.files import read_json, write_json
from stepfront.search.cli.tables.runs import run_table
from stepfront.search.config import save_settings, settings_from
from stepfront.search.records.run_list import list_runs
from stepfront.search.storage.lock import directory_lock
from stepfront.tables.parquet import write_table
from stepfront.tables.schema import FRONT, SETTINGS_FILE


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Return a folder with a finished, an interrupted, a damaged and a trained run, and something else."""
    found = made_up_search(8)
    for name, finished in (("done", "2026-01-01"), ("half", None), ("torn", "2026-01-01")):
        search = tmp_path / name / "search"
        write_table(found.front, search / FRONT)
        facts = {"search_id": name, "evaluations": 7, "failed": 1, "dataset": "digits"}
        write_json(search / "search.json", facts | {"finished": finished})
        save_settings(settings_from({"name": name, "directory": str(tmp_path)}), search / SETTINGS_FILE)
    (tmp_path / "torn" / "search" / FRONT).write_bytes(b"PAR1")
    write_json(tmp_path / "net" / "supernet" / "supernet.json", {})
    (tmp_path / "other").mkdir()
    return tmp_path


def test_runs_are_listed_with_their_states(runs: Path) -> None:
    before = sorted(runs.rglob("*"))
    found = {run.name: run for run in list_runs(runs)}
    assert {name: run.state for name, run in found.items()} == {
        "done": "finished",
        "half": "interrupted",
        "torn": "damaged",
        "net": "trained",
    }
    assert (found["done"].trials, found["done"].points) == (8, len(made_up_search(8).front))
    assert "front.parquet is not a readable table" in found["torn"].problem
    assert found["net"].trials is None
    assert found["done"].bytes == sum(p.stat().st_size for p in (runs / "done").rglob("*") if p.is_file())
    assert [run.name for run in list_runs(runs / "done")] == ["done"]
    assert sorted(runs.rglob("*")) == before
    assert run_table(list(found.values())).row_count == 4


def test_a_run_at_work_is_shown_as_such(runs: Path) -> None:
    with directory_lock(runs / "half" / "search"):
        (half,) = list_runs(runs / "half")
        assert (half.state, half.trials, half.points) == ("searching", 8, len(made_up_search(8).front))
        (runs / "half" / "search" / "search.json").unlink()
        (half,) = list_runs(runs / "half")
        assert (half.state, half.trials) == ("searching", None)
    with directory_lock(runs / "net" / "supernet"):
        assert {run.name: run.state for run in list_runs(runs)}["net"] == "training"


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        list_runs(tmp_path / "nowhere")


def test_the_folder_of_a_search_or_supernet_is_its_run(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list_runs(runs / "done" / "search") == list_runs(runs / "done")
    assert list_runs(runs / "net" / "supernet") == list_runs(runs / "net")
    monkeypatch.chdir(runs / "done" / "search")
    assert [(run.name, run.state) for run in list_runs(Path("."))] == [("done", "finished")]
    assert list_runs(runs / "other") == []


def test_what_other_verbs_refuse_is_not_finished(runs: Path) -> None:
    facts, settings = runs / "done" / "search" / "search.json", runs / "half" / "search" / SETTINGS_FILE
    write_json(facts, read_json(facts, "facts") | {"format": 99})
    begin_record(settings.parent)
    record_as_it_is(settings)
    settings.write_text(settings.read_text() + "\n# by hand\n")
    found = {run.name: run for run in list_runs(runs)}
    assert (found["done"].state, found["half"].state) == ("other version", "damaged")
    assert "has layout 99" in found["done"].problem
    assert "was changed since the search wrote it" in found["half"].problem


def test_savings_are_listed_where_a_claim_holds(runs: Path) -> None:
    claims = {"done": (True, "44%", "-1%"), "half": (False, "none shown", "–")}
    for name, (holds, *_) in claims.items():
        search = runs / name / "search"
        savings = {"holds": holds, "plan": "4x1.00", "margin": 0.05, "judges": [], "seeds": 5, "images": 64, "trial": 1}
        savings |= {"flops_saved": 0.44, "flops_saved_against_best_full_width": -0.01, "latency_saved": None}
        savings |= {"reference": {"plan": "20x1.00", "sampler": "", "gflops": 1.0}}
        write_json(search / "search.json", read_json(search / "search.json", "facts") | {"savings": savings})
    found = [run for run in list_runs(runs) if run.name in claims]
    columns = {column.name: column.cells for column in run_table(found).columns}
    shown = list(zip((run.name for run in found), columns["saved"], columns["by widths"], strict=True))
    assert shown == [(name, saved, by_widths) for name, (_, saved, by_widths) in claims.items()]
