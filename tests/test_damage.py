"""The short form of `make bench-damage`: no single fault in the files of a search is a traceback or goes unnoticed."""

from __future__ import annotations

import random
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.damage.__main__ import cells_of, page
from benchmarks.damage.faults import FAULTS, applies
from benchmarks.damage.matrix import Row, judge, run_matrix
from benchmarks.damage.small_search import files_of
from benchmarks.damage.verbs import VERBS, Verb, call
from benchmarks.markdown import page_cells
from tests.made_up_run import write_made_up_run

READING = [verb for verb in VERBS if verb.name in ("front", "compare")]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run of a made-up search whose files are recorded."""
    return write_made_up_run(tmp_path_factory.mktemp("base"), "made-up")


@pytest.mark.parametrize("checksums", [True, False], ids=["with checksums", "without"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_or_changes_nothing(fault: str, checksums: bool, base: Path) -> None:
    if fault == "byte flipped" and not checksums:
        pytest.skip("a flipped digit is found by its checksum alone")
    (row,) = run_matrix(base, [fault], READING, checksums)
    assert row.injected >= 5
    assert (row.tracebacks, row.silent) == (0, 0), "\n".join(row.examples)
    assert row.refused >= 4


def test_the_driver_sees_a_traceback_and_a_silent_difference(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that can't fail is none."""
    from stepfront.search.cli import points

    monkeypatch.setattr(points, "json_rows", lambda table: [{"trial": len(table)}] if len(table) == 1 else 1 / 0)
    outcome = call(["front", str(base), "--json"], base)
    assert "ZeroDivisionError" in outcome.trace
    row = Row("cut", True)
    monkeypatch.setattr(points, "json_rows", lambda table: [{"trial": 1}])
    judge(row, Verb("front", ("front", "RUN", "--json")), "x", base, {"front": "something else"})
    assert row.silent == 1


def test_faults_change_the_file(tmp_path: Path) -> None:
    for name, fault in FAULTS.items():
        path = tmp_path / f"{name}.parquet"
        pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}).to_parquet(path)
        before = path.read_bytes()
        fault(path, random.Random(1))
        assert not path.is_file() or path.read_bytes() != before
    assert applies("folder", "lock")
    assert not applies("cut", "lock")
    assert [one for one in files_of(tmp_path) if one.startswith("cut")] == ["cut.parquet"]


def test_a_page_is_continued_and_a_fault_put_into_some_files(base: Path, tmp_path: Path) -> None:
    lines = [cells_of(row, READING) for row in run_matrix(base, ["cut"], READING, True, most=2)]
    assert [(line["verbs"], line["injected"], line["calls"]) for line in lines] == [("front, compare", "2", "4")]
    (tmp_path / "page.md").write_text(page(lines))
    assert page_cells(tmp_path / "page.md") == lines
