"""The short form of `make bench-kills`: the next call works, whatever an interrupted verb has left."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.kills.__main__ import cells_of, page
from benchmarks.kills.contents import leftovers
from benchmarks.kills.file_events import Fault, Watch
from benchmarks.kills.forked import call_forked
from benchmarks.kills.matrix import Row, interrupt
from benchmarks.kills.verbs import VERBS, Verb
from benchmarks.markdown import page_cells
from stepfront.beside import part_of
from stepfront.dashboards.report import write_comparison
from stepfront.search.api import open_search
from tests.made_up_run import write_made_up_run


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a made-up search, as far as the verbs here read it."""
    place = tmp_path_factory.mktemp("kills")
    directory = write_made_up_run(place / "runs", "damage") / "search"
    # Here as well, so that forks find the modules imported.
    assert write_comparison([directory], tmp_path_factory.mktemp("page") / "page.html").exists()
    assert len(open_search(directory).front())
    return place


@pytest.mark.parametrize("fault", ["killed", "disk full"])
def test_an_interrupted_verb_leaves_nothing_half_and_works_again(fault: Fault, base: Path) -> None:
    (verb,) = [verb for verb in VERBS if verb.name == "compare"]
    row = interrupt(base, verb, fault, 2, checked=False)
    assert row.tried == 2
    assert row.faults == 0, "\n".join(row.examples)


def test_the_driver_sees_what_is_half_left_and_different(base: Path, tmp_path: Path) -> None:
    """A check that can't fail is none."""
    calls = []

    def made(root: Path) -> dict[str, object]:
        calls.append(root)
        return {"calls": len(calls)}  # never the same

    def half(root: Path) -> dict[str, object]:
        part_of(root / "left").write_text("half")
        return {"calls": len(calls)} if calls else {}

    row = interrupt(
        base, Verb("front", ("front", "./runs/damage", "--export", "./f.csv"), made, half), "killed", 1, checked=False
    )
    assert (row.different, row.left) == (1, 1)


def test_a_process_dies_at_the_event_that_is_asked_for(tmp_path: Path, base: Path) -> None:
    shutil.copytree(base, tmp_path / "root")
    words = ("front", str(tmp_path / "root" / "runs" / "damage"), "--export", str(tmp_path / "root" / "f.csv"))
    whole = call_forked(words, Watch(tmp_path / "root", "killed", 0), tmp_path)
    assert (whole.code, whole.events > 1) == (0, True)
    (tmp_path / "root" / "f.csv").unlink()
    killed = call_forked(words, Watch(tmp_path / "root", "killed", 2), tmp_path)
    assert (killed.code, (tmp_path / "root" / "f.csv").exists()) == (-9, False)
    full = call_forked(words, Watch(tmp_path / "root", "disk full", 1), tmp_path)
    assert (full.code, full.error.count("\n"), "o space left" in full.error) == (2, 1, True)
    assert call_forked(words, Watch(tmp_path / "root", "killed", 0), tmp_path).code == 0
    assert leftovers(tmp_path / "root") == []


def test_a_page_is_continued_verb_by_verb(tmp_path: Path) -> None:
    lines = [cells_of(Row("sync", "killed", 30, 4)), cells_of(Row("export", "disk full", 20, 4, half=1))]
    (tmp_path / "page.md").write_text(page(lines))
    assert page_cells(tmp_path / "page.md") == lines[::-1]  # in the order of the verbs
    assert page_cells(tmp_path / "none.md") == []
    assert "Not measured: killed: export, import, train, register, report," in page(lines)
    assert "disk full: import, train," in page(lines)
