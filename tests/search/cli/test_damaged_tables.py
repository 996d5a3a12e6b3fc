"""A search whose files are missing or damaged is one line and exit code 2, whichever verb reads it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.tracking import made_up_search
from stepfront.files import write_json
from stepfront.search.config import save_settings, settings_from
from stepfront.tables.parquet import write_table
from stepfront.tables.schema import FRONT, PROGRESS, TRIALS
from tests.search.cli.test_cli import call


@pytest.fixture
def search(tmp_path: Path) -> Path:
    """Return a search directory of made-up trials."""
    settings = settings_from({"name": "made-up", "directory": str(tmp_path), "tracking": {"uri": None}})
    directory, found = settings.search_directory, made_up_search(8)
    for name, table in ((TRIALS, found.trials), (PROGRESS, found.progress), (FRONT, found.front)):
        write_table(table, directory / name)
    write_json(directory / "search.json", dict(found.facts))
    (directory / "images").mkdir()
    (directory / "images" / "index.json").write_text("[]")
    save_settings(settings, directory / "settings.yaml")
    return directory


@pytest.mark.parametrize("verb", ["compare", "front", "report"])
def test_a_search_with_its_files_is_read(verb: str, search: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(search.parent)
    code, _, error = call(monkeypatch, capsys, *words(verb, search))
    assert (code, error) == (0, "")


def words(verb: str, search: Path) -> list[str]:
    """Return the call of a verb; `compare` has a copy of the search to compare it with."""
    twin = search.parent.parent / "twin" / "search"
    if verb == "compare" and not twin.exists():
        shutil.copytree(search, twin)
    return [verb, str(search), *([str(twin)] if verb == "compare" else [])]


def test_wrong_comparisons_are_one_line(search: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(search.parent)
    given = words("compare", search)
    wrong = {
        (*given, "--out", "page.txt"): "--out page.txt is not a .html file",
        tuple(given[:2]): f"only {search} was given; give at least two searches",
        (*given, str(search.parent)): f"{search} and {search.parent} are the same search; give each once",
    }
    for call_, expected in wrong.items():
        code, _, error = call(monkeypatch, capsys, *call_)
        assert (code, expected in error, error.count("\n")) == (2, True, 1), error
    shutil.copytree(search, search.parent.parent / "third" / "search")
    (search / TRIALS).write_bytes(b"PAR1 torn")
    assert f"or leave {search} out of the comparison" in call(monkeypatch, capsys, *given, "../third")[2]


@pytest.mark.parametrize("damage", ["missing", "damaged"])
@pytest.mark.parametrize("file", [TRIALS, FRONT, "search.json"])
@pytest.mark.parametrize("verb", ["compare", "front", "report"])
def test_a_bad_file_is_one_line(  # type: ignore[no-untyped-def]
    verb: str, file: str, damage: str, search: Path, monkeypatch, capsys
) -> None:
    path, given = search / file, words(verb, search)
    path.unlink() if damage == "missing" else path.write_bytes(b"PAR1 torn")
    monkeypatch.chdir(search.parent)
    code, said, error = call(monkeypatch, capsys, *given)
    assert (code, said, error.count("\n")) == (2, "", 1)
    assert (str(search) if file == "search.json" and damage == "missing" else str(path)) in error


def test_a_search_of_the_first_version_is_one_line(search: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    (search / "rungs.parquet").write_bytes(b"")
    for verb in ("compare", "front", "report", "confirm", "resume"):
        code, _, error = call(monkeypatch, capsys, *words(verb, search))
        assert (code, error.count("\n")) == (2, 1)
        assert "was made by stepfront 0.1" in error
