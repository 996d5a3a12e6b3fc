"""`stepfront delete`: what it deletes, what it leaves, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import uuid
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import typer

from benchmarks.tracking import made_up_search
from stepfront.checksums import COPY_STATE
from stepfront.errors import InputError
from stepfront.files import read_json, write_json
from stepfront.search.config import save_settings
from stepfront.search.driver.delete import delete_parts, find_parts
from stepfront.search.driver.open_ledger import check_nothing_lost
from stepfront.search.driver.search import start_over
from stepfront.search.mlflow_runs.client import make_client
from stepfront.search.mlflow_runs.written import WrittenSearch
from stepfront.search.records.run_directory import resume_settings
from stepfront.search.records.run_list import list_runs
from stepfront.search.storage.lock import InUseError, directory_lock
from stepfront.search.study.optuna_storage import delete_study, finished_numbers, open_storage, study_name
from stepfront.tables.parquet import write_table
from stepfront.tables.schema import TRIALS
from tests.search.cli.test_cli import call
from tests.search.conftest import own_store, tiny_settings
from tests.search.study.test_ledger import make_ledger, outcomes
from tests.search.study.test_ledger import run as run_ledger


@pytest.fixture
def run(tmp_path: Path, empty_store: Path) -> Path:
    """Return a run with a search and a supernet, both with their settings."""
    settings = tiny_settings(tmp_path, own_store(tmp_path, empty_store))
    for part in ("search", "supernet"):
        (tmp_path / "tiny" / part).mkdir(parents=True)
        save_settings(settings, tmp_path / "tiny" / part / "settings.yaml")
    write_json(tmp_path / "tiny" / "search" / "search.json", {"search_id": "s"})
    write_json(tmp_path / "tiny" / "supernet" / "supernet.json", {})
    return tmp_path / "tiny"


def test_a_run_is_deleted_with_its_folder(run: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    size = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    code, shown, _ = call(monkeypatch, capsys, "delete", str(run), "--yes", "--json")
    assert code == 0
    assert json.loads(shown) == {
        "deleted": [str(run / "search"), str(run / "supernet")],
        "bytes": size,
        "mlflow_runs": 0,
    }
    assert not run.exists()
    assert sorted(path.name for path in run.parent.iterdir()) == ["mlflow.db"]


def test_what_lies_beside_a_search_stays(run: Path) -> None:
    (run / "notes.txt").write_text("mine")
    assert [part.kind for part in find_parts(str(run / "search"))] == ["search"]
    delete_parts(find_parts(str(run / "search")), mlflow=False)
    assert sorted(path.name for path in run.iterdir()) == ["notes.txt", "supernet"]
    delete_parts(find_parts(str(run)), mlflow=False)
    assert [path.name for path in run.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(("folder", "place"), [("search", "."), ("search/samplers", "..")])
def test_the_current_folder_is_deleted_by_its_short_name(
    folder: str,
    place: str,
    run: Path,
    monkeypatch,  # type: ignore[no-untyped-def]
    capsys,  # type: ignore[no-untyped-def]
) -> None:
    (run / folder).mkdir(exist_ok=True)
    monkeypatch.chdir(run / folder)
    code, shown, _ = call(monkeypatch, capsys, "delete", place, "--yes")
    assert code == 0
    assert "freed" in shown
    assert [path.name for path in run.iterdir()] == ["supernet"]


def test_without_yes_and_without_a_terminal_nothing_is_deleted(run: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    code, shown, error = call(monkeypatch, capsys, "delete", str(run / "supernet"))
    assert (code, error.count("\n")) == (2, 1)
    assert "--yes" in error
    assert "needs this supernet" in shown
    assert (run / "supernet" / "supernet.json").exists()


def test_a_no_deletes_nothing(run: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    for answer, left in ((False, True), (True, False)):
        monkeypatch.setattr(typer, "confirm", lambda *asked, answer=answer, **how: answer)
        code, shown, _ = call(monkeypatch, capsys, "delete", str(run))
        assert code == 0
        assert ("nothing was deleted" in shown) == left
        assert run.exists() == left


def test_a_run_at_work_is_refused_whole(run: Path) -> None:
    before = sorted(run.rglob("*.json"))
    with directory_lock(run / "supernet"), pytest.raises(InUseError, match="is in use by another stepfront"):
        delete_parts(find_parts(str(run)), mlflow=False)
    assert sorted(run.rglob("*.json")) == before


@pytest.mark.parametrize("left", [[], ["settings.yaml", "mlflow.json", "checksums.json"]])
def test_a_run_that_ended_at_its_beginning_is_deleted(left: list[str], tmp_path: Path) -> None:
    supernet = tmp_path / "begun" / "supernet"
    with directory_lock(supernet):
        for name in left:
            (supernet / name).write_text("")
    assert [run.state for run in list_runs(tmp_path)] == ["begun"]
    (supernet / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="`stepfront list` shows"):
        find_parts(str(supernet.parent))
    (supernet / "notes.txt").unlink()
    delete_parts(find_parts(str(supernet.parent)), mlflow=False)
    assert not supernet.parent.exists()


@pytest.mark.parametrize("place", ["other", "other/search", "nowhere", "linked", "s3://bucket/runs/digits"])
def test_other_folders_links_and_uris_are_refused(
    place: str,
    run: Path,
    monkeypatch,  # type: ignore[no-untyped-def]
    capsys,  # type: ignore[no-untyped-def]
) -> None:
    monkeypatch.chdir(run.parent)
    (run.parent / "other" / "search").mkdir(parents=True)  # such as the folder of a program of that name
    (run.parent / "other" / "search" / "settings.yaml").write_text("a: 1\n")
    (run.parent / "linked").symlink_to(run / "search")
    code, _, error = call(monkeypatch, capsys, "delete", place, "--yes")
    assert (code, error.count("\n")) == (2, 1)
    assert (run.parent / "other" / "search" / "settings.yaml").exists()
    assert (run / "search" / "search.json").exists()


def test_a_deletion_that_was_killed_is_finished_by_the_next(run: Path) -> None:
    aside = run / ".search.deleting"
    aside.mkdir()
    (aside / "left").write_text("")
    delete_parts(find_parts(str(run)), mlflow=False)
    assert not run.exists()


def test_the_study_in_a_shared_database_is_deleted(run: Path) -> None:
    url = f"sqlite:///{run.parent / 'shared.db'}"
    save_settings(tiny_settings(run.parent, f"storage={url}"), run / "search" / "settings.yaml")
    names = [study_name(url, run / "search"), "another"]
    for name in names:
        optuna.create_study(study_name=name, storage=open_storage(url, run / "search"))
    (part,) = find_parts(str(run / "search"))
    assert part.study == url
    delete_parts([part], mlflow=False)
    assert optuna.get_all_study_names(open_storage(url, run.parent)) == ["another"]


@pytest.fixture
def shared(run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of a database, away from the run, that holds its study."""
    url = f"sqlite:///{tmp_path_factory.mktemp('database') / 'shared.db'}"
    save_settings(tiny_settings(run.parent, f"storage={url}"), run / "search" / "settings.yaml")
    make_study(url, run / "search")
    return url


def make_study(url: str, search: Path) -> None:
    optuna.create_study(study_name=study_name(url, search), storage=open_storage(url, search))


def studies(url: str, place: Path) -> list[str]:
    return list(optuna.get_all_study_names(open_storage(url, place)))


def test_a_copy_keeps_the_study_of_its_original(run: Path, shared: str, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    before = studies(shared, run)
    copy = run.parent / "copies" / "tiny"
    shutil.copytree(run, copy)
    code, shown, _ = call(monkeypatch, capsys, "delete", str(copy), "--yes")
    assert (code, copy.exists()) == (0, False)
    assert "which this folder is a copy of" in " ".join(shown.split())
    assert studies(shared, run) == before
    delete_parts(find_parts(str(run)), mlflow=False)
    assert studies(shared, run.parent) == []


def test_a_copy_that_goes_on_has_a_study_of_its_own(run: Path, shared: str) -> None:
    search, copy = run / "search", run.parent / "copy" / "search"
    shutil.copytree(search, copy)
    assert study_name(shared, copy) != study_name(shared, search)
    assert finished_numbers(shared, copy) == set()  # so that `resume` names the repair
    delete_study(shared, copy)  # as search --fresh does
    make_study(shared, copy)
    assert len(studies(shared, run)) == 2
    save_settings(resume_settings(copy), copy / "settings.yaml")  # as a driver does at its start
    delete_parts(find_parts(str(copy)), mlflow=False)
    assert studies(shared, run) == [study_name(shared, search)]


def test_a_moved_search_keeps_its_study_and_owns_it_once_a_driver_was_there(run: Path, shared: str) -> None:
    name = study_name(shared, run / "search")
    moved = run.rename(run.parent / "moved") / "search"
    assert study_name(shared, moved) == name
    (part,) = [part for part in find_parts(str(moved.parent)) if part.kind == "search"]
    assert "may be a copy of" in part.kept  # as one on another machine would look
    save_settings(resume_settings(moved), moved / "settings.yaml")
    delete_parts(find_parts(str(moved)), mlflow=False)
    assert studies(shared, run.parent) == []


def test_a_copy_with_a_copied_database_deletes_from_that_one(run: Path) -> None:
    url, theirs = (f"sqlite:///{place}/shared.db" for place in (run.parent, run.parent / "copies"))
    save_settings(tiny_settings(run.parent, f"storage={url}"), run / "search" / "settings.yaml")
    make_study(url, run / "search")
    copy = run.parent / "copies" / "tiny"
    shutil.copytree(run, copy)
    shutil.copy(run.parent / "shared.db", copy.parent / "shared.db")
    assert study_name(theirs, copy / "search") == study_name(url, run / "search")
    delete_parts(find_parts(str(copy)), mlflow=False)
    assert (len(studies(url, run)), studies(theirs, run)) == (1, [])


def test_the_local_copy_of_a_run_at_a_uri_keeps_the_study(run: Path, shared: str) -> None:
    (run / COPY_STATE).write_text("{}")
    moved = run.rename(run.parent / "another machine's") / "search"
    assert study_name(shared, moved) in studies(shared, moved)
    delete_parts(find_parts(str(moved)), mlflow=False)
    assert len(studies(shared, run.parent)) == 1


def drive(url: str, place: Path, most: int = 10_000) -> list[tuple[int, str, str, list[float]]]:
    """Search in PLACE/search as a driver does, without a network; return the study's trials."""
    search = place / "search"
    search.mkdir(parents=True, exist_ok=True)
    settings = tiny_settings(place.parent, f"storage={url}", f"name={place.name}")
    check_nothing_lost(settings, search)
    ledger = make_ledger("memory", search, storage=open_storage(url, search), name=study_name(url, search))
    save_settings(settings, search / "settings.yaml")
    run_ledger(ledger, most)
    identity = read_json(search / "search.json", "facts")["search_id"] if (search / "search.json").exists() else ""
    write_json(search / "search.json", {"search_id": ledger.search_id(identity or uuid.uuid4().hex)})
    write_table(made_up_search(ledger.finished).trials, search / TRIALS)
    found = outcomes(ledger)
    ledger.close()
    return found


@pytest.fixture
def away(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of an empty database that is away from the runs."""
    return f"sqlite:///{tmp_path_factory.mktemp('database') / 'shared.db'}"


def earlier_name(place: Path) -> str:
    """Return the name that version 0.1 gave to the study of the run at a place."""
    return f"{place.name}-{hashlib.sha256(str((place / 'search').resolve()).encode()).hexdigest()[:12]}"


def with_earlier_name(url: str, place: Path, named: bool) -> None:
    """Search in a place under the earlier rule; its name is in a file if `named`."""
    (place / "search").mkdir(parents=True)
    (place / "search" / "study.name").write_text(f"{earlier_name(place)}\n")
    drive(url, place, most=7)
    if not named:
        (place / "search" / "study.name").unlink()


@pytest.mark.parametrize(
    ("ends", "earlier"),
    [*((end, False) for end in ("delete old", "delete new", "fresh old", "fresh new")), ("delete new", True)],
)
def test_a_new_search_where_a_run_was_moved_from_has_a_study_of_its_own(
    ends: str, earlier: bool, tmp_path: Path, away: str
) -> None:
    new, old = tmp_path / "digits", tmp_path / "old"
    if earlier:
        with_earlier_name(away, new, named=True)
    else:
        drive(away, new, most=7)
    new.rename(old)
    theirs = study_name(away, old / "search")
    assert len(drive(away, new, most=3)) == 3  # nothing of the moved run's 7 trials
    ours = study_name(away, new / "search")
    assert study_name(away, old / "search") == theirs != ours
    assert finished_numbers(away, old / "search") == set(range(7))
    assert len(drive(away, old, most=1)) == 8  # it continues, and owns its study
    one = old if ends.endswith("old") else new
    if ends.startswith("delete"):
        delete_parts(find_parts(str(one)), mlflow=False)
        assert studies(away, tmp_path) == [ours if one == old else theirs]
    else:
        start_over(resume_settings(one), one / "search")
        assert studies(away, tmp_path) == [ours if one == old else theirs]
        assert len(drive(away, one, most=2)) == 2
    other = new if one == old else old
    assert len(drive(away, other, most=1)) == {new: 4, old: 9}[other]


def test_deleting_the_new_search_before_the_moved_one_is_resumed_leaves_that_its_study(
    tmp_path: Path, away: str
) -> None:
    drive(away, tmp_path / "digits", most=7)
    (tmp_path / "digits").rename(tmp_path / "old")
    drive(away, tmp_path / "digits", most=3)
    start_over(resume_settings(tmp_path / "digits"), tmp_path / "digits" / "search")
    drive(away, tmp_path / "digits", most=3)
    delete_parts(find_parts(str(tmp_path / "digits")), mlflow=False)
    assert len(drive(away, tmp_path / "old", most=1)) == 8


@pytest.mark.parametrize("named", [False, True])
def test_a_search_of_an_earlier_version_continues_its_study(named: bool, tmp_path: Path, away: str) -> None:
    with_earlier_name(away, tmp_path / "digits", named)
    assert len(drive(away, tmp_path / "digits", most=1)) == 8
    assert studies(away, tmp_path) == [earlier_name(tmp_path / "digits")]


def test_a_search_that_lost_the_name_of_its_study_takes_none_of_another_search(tmp_path: Path, away: str) -> None:
    new, old = tmp_path / "digits", tmp_path / "old"
    with_earlier_name(away, new, named=True)
    new.rename(old)
    drive(away, new, most=3)
    (new / "search" / "study.name").unlink()
    with pytest.raises(InputError, match="lacks 3 of the trials"):
        drive(away, new)
    assert len(drive(away, old, most=1)) == 8


def test_a_search_begun_anew_is_still_the_original_of_its_copies(tmp_path: Path, away: str) -> None:
    run, copies = tmp_path / "digits", [tmp_path / "copies" / name for name in "ab"]
    drive(away, run, most=7)
    for copy in copies:
        shutil.copytree(run, copy)
    start_over(resume_settings(run), run / "search")
    assert len({study_name(away, place / "search") for place in (run, *copies)}) == 3


def test_a_search_that_was_killed_when_it_started_over_is_deleted(tmp_path: Path, away: str) -> None:
    drive(away, tmp_path / "digits", most=3)
    with directory_lock(tmp_path / "digits" / "search"):
        start_over(resume_settings(tmp_path / "digits"), tmp_path / "digits" / "search")
    delete_parts(find_parts(str(tmp_path / "digits")), mlflow=False)
    assert not (tmp_path / "digits").exists()


def test_runs_in_mlflow_are_deleted_when_asked(run: Path) -> None:
    client = make_client(f"sqlite:///{run.parent / 'mlflow.db'}")
    experiment = client.create_experiment("made up")
    parent, other = (client.create_run(experiment).info.run_id for _ in range(2))
    for _ in range(3):
        client.create_run(experiment, tags={"mlflow.parentRunId": parent})
    client.create_logged_model(experiment, "trial-0", source_run_id=parent)
    kept = client.create_logged_model(experiment, "trial-0", source_run_id=other)
    WrittenSearch(experiment_id=experiment, run_id=parent).save(run / "search")
    assert delete_parts(find_parts(str(run / "search")), mlflow=True) == 4
    assert [found.info.run_id for found in client.search_runs([experiment])] == [other]
    assert [model.model_id for model in client.search_logged_models([experiment])] == [kept.model_id]


def test_an_mlflow_that_is_missing_keeps_the_search(run: Path) -> None:
    WrittenSearch(experiment_id="1", run_id="gone").save(run / "search")
    (run.parent / "mlflow.db").unlink()
    with pytest.raises(InputError, match="there is no MLflow database"):
        delete_parts(find_parts(str(run / "search")), mlflow=True)
    assert (run / "search" / "search.json").exists()
