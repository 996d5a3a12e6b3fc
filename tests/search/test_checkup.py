"""`stepfront doctor SEARCH`: what it finds in a damaged search directory, and that --repair mends it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from search import checkup, tables
from search.directory import find_search
from tests.search.conftest import tiny_settings
from trainers.errors import InputError


@pytest.fixture(scope="module")
def finished(trained: Path, cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tiny search in a folder of its own."""
    from tests.search.test_run import do_search

    place = tmp_path_factory.mktemp("finished")
    shutil.copytree(trained / "tiny" / "supernet", place / "tiny" / "supernet")
    do_search(place)
    return place


@pytest.fixture
def search(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, elsewhere: a search may be moved with its supernet."""
    shutil.copytree(finished / "tiny", tmp_path / "moved")
    return tmp_path / "moved"


def failures(search: Path) -> dict[str, str]:
    return {found.what: found.says for found in checkup.examine_search(search) if not found.usable}


def test_a_whole_search_has_no_failures_even_when_it_was_moved(search: Path) -> None:
    assert failures(search) == {}
    said = {found.what: found.says for found in checkup.examine_search(search)}
    assert said["tables"] == "9 trials, as in the study"
    assert said["study"].startswith("9 complete, 0 failed, 0 cut off")
    assert find_search(search)[1].search_directory == search / "search"


@pytest.mark.parametrize("damage", ["trials shorter", "a changed score", "front of other trials", "no tables"])
def test_views_that_differ_from_the_study_are_found_and_repaired(damage: str, search: Path) -> None:
    trials = search / "search" / tables.TRIALS
    whole = pd.read_parquet(trials)
    if damage == "trials shorter":
        whole.iloc[:-1].to_parquet(trials)
    elif damage == "a changed score":
        whole.assign(fid=whole["fid"] + np.where(whole["trial"] == 3, 1e-3, 0)).to_parquet(trials)
    elif damage == "front of other trials":
        front = search / "search" / tables.FRONT
        pd.read_parquet(front).iloc[1:].to_parquet(front)
    else:
        for name in (tables.TRIALS, tables.FRONT, tables.PROGRESS):
            (search / "search" / name).unlink()
    assert set(failures(search)) & {"tables", "front"}
    checkup.repair(search)
    assert failures(search) == {}
    pd.testing.assert_frame_equal(pd.read_parquet(trials), whole)


def test_another_supernet_is_found(search: Path, trained: Path) -> None:
    weights = search / "supernet" / "supernet.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    assert "does not belong to its card" in failures(search)["supernet"]


def test_a_storage_cut_short_is_found(search: Path) -> None:
    study = search / "search" / "study.db"
    for beside in study.parent.glob("study.db-*"):
        beside.unlink()
    study.write_bytes(study.read_bytes()[:5000])
    assert "can't be opened" in failures(search)["study"]


def test_where_no_search_was_begun_the_doctor_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no search was begun in"):
        checkup.examine_search(tmp_path)
    assert tiny_settings(tmp_path).search_directory.exists() is False
