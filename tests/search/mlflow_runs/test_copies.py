"""A run that was copied by hand: its original keeps the runs in MLflow, and the copy gets its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.tracking import made_up_search
from stepfront.errors import InputError
from stepfront.search.config import RunSettings, save_settings
from stepfront.search.driver.delete import delete_parts, find_parts
from stepfront.search.mlflow_runs.client import make_client
from stepfront.search.mlflow_runs.copies import keep_own_note, original_of_runs, read_own_note
from stepfront.search.mlflow_runs.open_client import set_environment
from stepfront.search.mlflow_runs.written import NOTE_FILE, WrittenSearch, WrittenTraining
from stepfront.search.records.run_directory import resume_settings
from stepfront.search.tracking.search_mirror import SearchMirror
from tests.search.conftest import own_store, tiny_settings


@pytest.fixture
def settings(tmp_path: Path, empty_store: Path) -> RunSettings:
    """Return the settings of a run with a search in MLflow and a supernet whose note names a run."""
    set_environment()
    settings = tiny_settings(tmp_path, own_store(tmp_path, empty_store))
    client = make_client(settings.tracking.uri)
    for directory in (settings.search_directory, settings.supernet_directory):
        directory.mkdir(parents=True)
        save_settings(settings, directory / "settings.yaml")
    write_search(settings)
    experiment = client.create_experiment("trainings")
    run_id = client.create_run(experiment).info.run_id
    WrittenTraining(experiment, run_id, "the-training").save(settings.supernet_directory)
    (settings.supernet_directory / "supernet.json").write_text("{}")
    return settings


def write_search(settings: RunSettings) -> WrittenSearch:
    """Write three trials of a search to MLflow, as `stepfront sync` does."""
    whole, directory = made_up_search(3), settings.search_directory
    (directory / "search.json").write_text(json.dumps(whole.facts))
    mirror = SearchMirror(settings, directory)
    assert mirror.close(whole, directory / "none", True) == ""
    return mirror.written


def active(settings: RunSettings) -> set[str]:
    client = make_client(settings.tracking.uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return {run.info.run_id for run in client.search_runs(experiments)}


def copied(settings: RunSettings) -> Path:
    copy = settings.run_directory.with_name("copy")
    shutil.copytree(settings.run_directory, copy)
    return copy


def test_deleting_a_copy_leaves_the_runs_of_its_original(settings: RunSettings) -> None:
    before = active(settings)
    parts = find_parts(str(copied(settings)))
    originals = [str(settings.search_directory), str(settings.supernet_directory)]
    assert [part.runs_of for part in parts] == originals
    assert delete_parts(parts, mlflow=True) == 0
    assert active(settings) == before
    assert len(before) == 5
    assert delete_parts(find_parts(str(settings.run_directory)), mlflow=True) == 5


@pytest.mark.parametrize("continued", [False, True])
def test_a_copy_writes_runs_of_its_own_and_deletes_no_others(continued: bool, settings: RunSettings) -> None:
    before, copy = active(settings), copied(settings)
    theirs = resume_settings(copy)
    if continued:  # as a driver does that works in the copy
        for place, kind in ((copy / "search", WrittenSearch), (copy / "supernet", WrittenTraining)):
            keep_own_note(place, kind, theirs.tracking.uri)
            save_settings(theirs, place / "settings.yaml")
        assert WrittenTraining.read(copy / "supernet") == WrittenTraining()
    own = write_search(theirs)
    assert write_search(theirs) == own
    assert len(active(settings) - before) == 4
    assert own.run_id not in before
    assert write_search(settings).run_id in before
    assert len(active(settings)) == len(before) + 4
    assert delete_parts(find_parts(str(copy / "search")), mlflow=True) == 4
    assert active(settings) == before


def test_a_run_that_has_moved_keeps_its_runs(settings: RunSettings) -> None:
    search, note = settings.search_directory, WrittenSearch.read(settings.search_directory)
    moved = settings.run_directory.rename(settings.run_directory.with_name("moved")) / "search"
    uri = resume_settings(moved).tracking.uri
    assert read_own_note(moved, WrittenSearch, uri) == note
    search.mkdir(parents=True)  # a new search at the old place
    shutil.copy(moved / "settings.yaml", search)
    (search / "search.json").write_text('{"search_id": "another"}')
    assert read_own_note(moved, WrittenSearch, uri) == note
    (search / "search.json").write_text((moved / "search.json").read_text())  # a backup that was restored there
    assert original_of_runs(moved, WrittenSearch, uri) == search
    assert original_of_runs(moved, WrittenSearch, None) is None


def test_runs_that_are_not_known_keep_the_folder(settings: RunSettings) -> None:
    for damage in (lambda path: path.write_text("{"), Path.unlink):
        damage(settings.search_directory / NOTE_FILE)
        with pytest.raises(InputError, match=r"mlflow\.json is missing or damaged.*stepfront sync"):
            delete_parts(find_parts(str(settings.run_directory)), mlflow=True)
    assert (settings.search_directory / "search.json").exists()
    assert (settings.supernet_directory / "supernet.json").exists()
    assert len(active(settings)) == 5
