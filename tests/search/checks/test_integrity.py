"""`stepfront doctor SEARCH`: what it finds in a damaged search directory, and that --repair fixes it."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stepfront.checksums import CHECKSUMS_FILE, forget
from stepfront.errors import InputError
from stepfront.files import read_json, write_json
from stepfront.search.checks.integrity import check_search, repair_search
from stepfront.search.checks.search_files import describe_judges
from stepfront.search.driver.search import run_search
from stepfront.search.records.run_directory import FACTS_FILE, find_search, resume_settings
from stepfront.search.study.optuna_storage import OWN_STUDY, close_storage, open_storage
from stepfront.tables.parquet import write_table
from stepfront.tables.schema import FRONT, JUDGES_FILE, PROGRESS, TRIALS
from tests.search.conftest import Silent, tiny_settings


@pytest.fixture
def search(searched: Path, tmp_path: Path) -> Path:
    """Return a copy of a search, elsewhere: it may be moved with its supernet."""
    shutil.copytree(searched.parent, tmp_path / "moved")
    return tmp_path / "moved"


def told(search: Path) -> list[tuple]:
    """All that the study knows of its trials, times of its own aside."""
    storage = open_storage(None, search / "search")
    trials = storage.get_all_trials(storage.get_study_id_from_name(OWN_STUDY))
    close_storage(storage)
    return [(t.number, t.state, t.values, t.user_attrs, t.constraints) for t in trials]


def failures(search: Path) -> dict[str, str]:
    """Return the findings that fail, but MLflow's: nothing publishes these searches."""
    return {one.what: one.detail for one in check_search(search) if not one.usable and one.what != "mlflow"}


def test_a_whole_search_has_no_failures_even_when_it_was_moved(search: Path) -> None:
    assert failures(search) == {}
    said = {found.what: found.detail for found in check_search(search)}
    assert said["tables"] == "9 trials, as in the study"
    assert said["study"].startswith("9 complete, 0 failed, 0 interrupted")
    assert find_search(search)[1].search_directory == search / "search"


def test_a_table_that_is_older_than_the_grids_of_plans_is_no_failure(search: Path) -> None:
    for name in ("trials.parquet", "front.parquet"):
        table = pd.read_parquet(search / "search" / name)
        assert set(table["grid"]) == {"trailing"}
        table.drop(columns="grid").to_parquet(search / "search" / name)
    (search / "search" / CHECKSUMS_FILE).unlink()  # a search as old as that has none
    assert "tables" not in failures(search)


def test_the_judges_are_described_as_the_search_recorded_them(tmp_path: Path) -> None:
    assert describe_judges(tmp_path) == "no examinations recorded: made by an earlier version"
    one = {"role": "search", "used": True, "features": "random", "failures": [], "ratio": 32.04}
    two = one | {"role": "confirm", "features": "mine", "failures": ["blind", "deaf"], "ratio": 1.5}
    write_json(tmp_path / JUDGES_FILE, [one, two, one | {"used": False}])
    assert describe_judges(tmp_path) == (
        "random passed (participation ratio 32.0), second judge mine failed: blind; deaf (participation ratio 1.5)"
    )
    write_json(tmp_path / JUDGES_FILE, [])
    assert describe_judges(tmp_path) == "not examined (features.examine: skip)"


@pytest.mark.parametrize("damage", ["trials shorter", "a changed score", "front of other trials", "no tables"])
def test_views_that_differ_from_the_study_are_found_and_repaired(damage: str, search: Path) -> None:
    trials = search / "search" / TRIALS
    whole = pd.read_parquet(trials)
    if damage == "trials shorter":
        whole.iloc[:-1].to_parquet(trials)
    elif damage == "a changed score":
        whole.assign(fid=whole["fid"] + np.where(whole["trial"] == 3, 1e-3, 0)).to_parquet(trials)
    elif damage == "front of other trials":
        front = search / "search" / FRONT
        pd.read_parquet(front).iloc[1:].to_parquet(front)
    else:
        for name in (TRIALS, FRONT, PROGRESS):
            (search / "search" / name).unlink()
    assert set(failures(search)) & {"tables", "front"}
    repair_search(search)
    assert failures(search) == {}
    pd.testing.assert_frame_equal(pd.read_parquet(trials), whole)


def test_another_supernet_is_found(search: Path, trained: Path) -> None:
    weights = search / "supernet" / "supernet.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    assert "does not match its card" in failures(search)["supernet"]


@pytest.mark.parametrize("damage", ["cut short", "emptied", "gone", "of an older copy"])
def test_a_study_that_lost_trials_is_found_and_rebuilt_from_the_table(damage: str, search: Path) -> None:
    directory, study = search / "search", search / "search" / "study.db"
    assert not list(directory.glob("study.db-*"))  # a search that has ended leaves one file, which may be copied
    trials, facts = pd.read_parquet(directory / TRIALS), read_json(directory / FACTS_FILE, "search")
    before = told(search)
    if damage == "cut short":
        study.write_bytes(study.read_bytes()[:5000])
    elif damage == "emptied":
        study.write_bytes(b"")
    elif damage == "gone":
        study.unlink()
    else:
        with contextlib.closing(sqlite3.connect(study)) as connection, connection:
            connection.execute("DELETE FROM trials WHERE number >= 5")
    assert "--repair" in failures(search)["study"]
    with pytest.raises(InputError, match=r"damaged|lacks"):
        run_search(resume_settings(search), False, Silent(), lambda text: None)
    repair_search(search)
    assert failures(search) == {}
    assert told(search) == before
    pd.testing.assert_frame_equal(pd.read_parquet(directory / TRIALS), trials)
    now = read_json(directory / FACTS_FILE, "search")
    assert {key: now[key] for key in ("search_id", "evaluations", "reference")} == {
        key: facts[key] for key in ("search_id", "evaluations", "reference")
    }
    if damage != "gone":
        assert (directory / "study.db.damaged-1").exists()


def test_a_study_is_rebuilt_without_the_trials_in_flight_and_they_are_asked_again(search: Path) -> None:
    trials = search / "search" / TRIALS
    whole = pd.read_parquet(trials)
    write_table(whole[whole["trial"] != 6], trials)
    (search / "search" / "study.db").unlink()
    repair_search(search)
    said = {found.what: found.detail for found in check_search(search)}
    assert said["study"].startswith("8 complete, 0 failed, 1 interrupted")
    run_search(resume_settings(search), False, Silent(), lambda text: None)
    now = pd.read_parquet(trials)
    assert now["trial"].tolist() == list(range(9))
    assert now["genome"].is_unique


def test_what_neither_study_nor_table_holds_is_not_made_up(search: Path) -> None:
    (search / "search" / "study.db").write_bytes(b"no database at all")
    (search / "search" / TRIALS).unlink()
    with pytest.raises(InputError, match=r"trials\.parquet has none to rebuild it from"):
        repair_search(search)
    assert (search / "search" / "study.db").read_bytes() == b"no database at all"


def test_damaged_facts_are_found_and_made_again_with_the_same_id(search: Path) -> None:
    facts = search / "search" / FACTS_FILE
    before = read_json(facts, "search")
    facts.write_text(facts.read_text()[:100])
    assert "search.json is damaged" in failures(search)["facts"]
    repair_search(search)
    assert failures(search) == {}
    assert read_json(facts, "search")["search_id"] == before["search_id"]


def test_a_search_that_was_interrupted_before_its_first_tables_is_no_failure(search: Path) -> None:
    for name in (TRIALS, FRONT, PROGRESS, FACTS_FILE):
        (search / "search" / name).unlink()
    assert {"files of the search", "facts", "tables", "front"} <= failures(search).keys()  # they were there
    for name in (TRIALS, FRONT, PROGRESS, FACTS_FILE):
        forget(search / "search" / name)
    assert failures(search) == {}
    assert {found.what: found.detail for found in check_search(search)}["tables"].startswith("none yet")
    (search / "search" / CHECKSUMS_FILE).unlink()  # a copy in part, of which nothing is known
    assert {"facts", "tables", "front"} <= failures(search).keys()


def test_where_no_search_was_begun_the_doctor_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no search was begun in"):
        check_search(tmp_path)
    assert tiny_settings(tmp_path).search_directory.exists() is False
