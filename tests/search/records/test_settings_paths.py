"""A run that was moved: what lay in it or beside it is found at its new place, what lay elsewhere where it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stepfront.search.config import save_settings, settings_from
from stepfront.search.records.run_directory import anchored, resume_settings, tracking_of_supernet
from stepfront.search.records.settings_paths import follow_move


@pytest.fixture
def moved(tmp_path: Path) -> tuple[Path, Path]:
    """Return the old place of a run, which is gone, and its new one."""
    old, new = tmp_path / "before" / "runs" / "a", tmp_path / "after" / "runs" / "b"
    new.mkdir(parents=True)
    return old, new


def test_what_is_in_the_run_or_beside_it_moves_along(moved: tuple[Path, Path]) -> None:
    old, new = moved
    assert follow_move(str(old / "supernet"), old, new) == str(new / "supernet")
    assert follow_move(str(old.parent / "mlflow.db"), old, new) == str(new.parent / "mlflow.db")


def test_what_is_elsewhere_stays_unless_it_moved_along(moved: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = moved
    (tmp_path / "data").mkdir()
    assert follow_move(str(tmp_path / "data"), old, new) == str(tmp_path / "data")
    (tmp_path / "after" / "images").mkdir()
    assert follow_move(str(tmp_path / "before" / "images"), old, new) == str(tmp_path / "after" / "images")
    assert follow_move("/nowhere/images", old, new) == "/nowhere/images"
    assert follow_move("images", old, new) == "images"


def test_a_run_that_moved_alone_keeps_the_store_that_stayed(moved: tuple[Path, Path]) -> None:
    old, new = moved
    store = old.parent / "mlflow.db"
    store.parent.mkdir(parents=True)
    store.touch()
    assert follow_move(str(store), old, new) == str(store)
    (new.parent / "mlflow.db").touch()  # a copy has its own
    assert follow_move(str(store), old, new) == str(new.parent / "mlflow.db")


def test_a_copy_writes_beside_itself_and_reads_what_stayed(tmp_path: Path) -> None:
    """A copy that writes to the database of its original would write over the original's runs."""
    runs, copies = tmp_path / "runs", tmp_path / "copies"
    (tmp_path / "data").mkdir()
    databases = {"tracking": {"uri": f"sqlite:///{runs}/mlflow.db"}, "storage": f"sqlite:///{runs}/study.db"}
    data = {"format": "folder", "path": str(tmp_path / "data"), "cache": str(runs / "cache")}
    settings = anchored(settings_from({"name": "x", "directory": str(runs), "data": data} | databases))
    for part in (settings.search_directory, settings.supernet_directory):
        save_settings(settings, part / "settings.yaml")
    for name in ("mlflow.db", "study.db"):
        (runs / name).touch()
    shutil.copytree(settings.search_directory, copies / "x" / "search")
    found = resume_settings(copies / "x")
    assert (found.tracking.uri, found.storage) == (f"sqlite:///{copies}/mlflow.db", f"sqlite:///{copies}/study.db")
    assert found.data.cache == str(copies / "cache")
    assert found.data.path == str(tmp_path / "data")
    assert found.supernet_directory == settings.supernet_directory
    shutil.copytree(settings.supernet_directory, copies / "x" / "supernet")
    assert tracking_of_supernet(copies / "x" / "supernet") == f"sqlite:///{copies}/mlflow.db"
    assert tracking_of_supernet(settings.supernet_directory) == f"sqlite:///{runs}/mlflow.db"
    (tmp_path / "link").symlink_to(runs / "x")  # the same run by another name
    assert resume_settings(tmp_path / "link").tracking.uri == f"sqlite:///{runs}/mlflow.db"


@pytest.mark.parametrize("name", ["runs", "a%2Fb", "what? #1", "~me"])
def test_settings_follow_a_move_of_the_whole_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tmp_path / "before" / name
    (before / "data").mkdir(parents=True)
    monkeypatch.chdir(before)
    given = {"name": "x", "directory": "runs", "data": {"format": "folder", "path": "data"}}
    settings = anchored(settings_from(given | {"tracking": {"uri": "sqlite:///runs/mlflow.db"}}))
    save_settings(settings, settings.search_directory / "settings.yaml")
    assert resume_settings(settings.run_directory) == settings
    after = tmp_path / "after"
    before.rename(after)
    found = resume_settings(after / "runs" / "x")
    assert found.supernet_directory == after / "runs" / "x" / "supernet"
    assert found.tracking.uri == f"sqlite:///{after}/runs/mlflow.db"
    assert found.data.path == str(after / "data")
    assert not before.exists()
