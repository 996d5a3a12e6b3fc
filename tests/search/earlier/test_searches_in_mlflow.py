"""`--from auto` in the tracking store: what is found by its space is used, and a store that is away is one line."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from benchmarks.tracking import STAGES, STEPS, made_up_search
from stepfront.errors import InputError
from stepfront.search.config import RunSettings, save_settings, settings_from
from stepfront.search.earlier import searches_in_mlflow
from stepfront.search.earlier.found_searches import auto_settings, space_of
from stepfront.search.earlier.kept_tables import keep_earlier, read_steps, warm_settings
from stepfront.search.mlflow_runs.client import make_client
from stepfront.search.mlflow_runs.stored_searches import NEEDED, StoredSearches
from stepfront.search.records.learnt_samplers import write_search_samplers
from stepfront.search.step_tables.gap_table import write_gap_table
from stepfront.search.tracking.parents import parent_searches
from stepfront.search.tracking.search_mirror import SearchMirror
from stepfront.tables.parquet import write_table
from stepfront.tables.schema import FRONT, PROGRESS, TRIALS
from stepfront.trainers.variant import Variant
from tests.search.conftest import own_store
from tests.search.earlier.test_earlier_samplers import RECORD

WIDTHS = (0.25, 0.5, 0.75, 1.0)


def search_settings(folder: Path, name: str, *more: str) -> RunSettings:
    space = {"encoding": "stages", "stages": STAGES, "skip": "even"}
    given = {"name": name, "directory": str(folder), "space": space, "sampler": {"steps": STEPS, "grid": "trailing"}}
    return settings_from(given, [f"network.widths={list(WIDTHS)}", *more])


def stored(settings: RunSettings, trials: int = 14, search_id: str = "theirs") -> Path:
    """Make a search of made-up trials and its runs in MLflow; return its directory."""
    search, whole = settings.search_directory, made_up_search(trials)
    space = {"encoding": settings.space.encoding, "skip": settings.space.skip, "widths": list(WIDTHS)}
    facts = dict(whole.facts) | space | {"steps": settings.sampler.steps, "solver": settings.sampler.solver}
    whole = replace(whole, facts=facts | {"search_id": search_id, "created": "2026-01-01T00:00:00+00:00"})
    for name, table in ((TRIALS, whole.trials), (PROGRESS, whole.progress), (FRONT, whole.front)):
        write_table(table, search / name)
    (search / "search.json").write_text(json.dumps(dict(whole.facts)))
    save_settings(settings, search / "settings.yaml")
    write_search_samplers(search, {3: RECORD})
    of: Any = type("Of", (), {"key": "any", "times": (990.0, 2.0), "columns": [Variant(width) for width in WIDTHS]})
    write_gap_table(search, of, np.ones((2, len(WIDTHS))))
    assert SearchMirror(settings, search).close(whole, search, True) == ""
    return search


def run_of_faces(client: MlflowClient) -> Run:
    experiments = [one.experiment_id for one in client.search_experiments()]
    (found,) = client.search_runs(experiments, "run_name = 'faces'")
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> str:
    """Return the override of a store with two searches of another machine, whose folders are gone."""
    place = tmp_path_factory.mktemp("server")
    uri, theirs = own_store(place, empty_store), place / "theirs"
    stored(search_settings(theirs, "faces", uri))
    stored(search_settings(theirs, "digits", uri, "sampler.steps=40"), search_id="newer and less alike")
    shutil.rmtree(theirs)
    client = make_client(uri.removeprefix("tracking.uri="))
    found = run_of_faces(client)
    for name, status in (("damaged", "FINISHED"), ("lacking", "FINISHED"), ("running", "RUNNING")):
        tags = found.data.tags | {"search_id": name, "mlflow.runName": name}
        run = client.create_run(found.info.experiment_id, tags=tags)
        client.log_param(run.info.run_id, "solver", found.data.params["solver"])
        for file in NEEDED if name == "damaged" else NEEDED[:2]:
            client.log_text(run.info.run_id, "name: [", file)
        client.update_run(run.info.run_id, status=status, name=name)
    return uri


def fronts(settings: RunSettings) -> list[Path]:
    return [Path(name.removeprefix("front:")) for name in settings.initial_plans if name.startswith("front:")]


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Return the list of run ids and files that are downloaded from now on."""
    download, done = MlflowClient.download_artifacts, list[tuple[str, str]]()

    def noted(client: MlflowClient, run_id: str, path: str, dst_path: str | None = None) -> str:
        done.append((run_id, path))
        return download(client, run_id, path, dst_path)

    monkeypatch.setattr(MlflowClient, "download_artifacts", noted)
    return done


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPFRONT_CACHE", str(tmp_path / "cache"))


def test_the_most_alike_search_of_the_store_is_copied_and_used(store: str, tmp_path: Path) -> None:
    ours = search_settings(tmp_path / "runs", "own", store)
    settings, line = auto_settings(ours)
    assert line == f"starts from faces (14 trials), found in MLflow at {ours.tracking.uri}"
    (name,) = [name for name in settings.initial_plans if name.startswith("front:")]
    assert name.startswith(f"front:{tmp_path / 'cache'}")
    (kept,) = keep_earlier(settings, settings.search_directory).values()
    steps = read_steps(kept)
    assert steps is not None
    assert (steps.name, steps.gap.shape) == ("faces", (2, 4))
    assert json.loads((kept / "samplers.json").read_text())["by_steps"].keys() == {"3"}
    (parent,) = parent_searches({"parent_searches": [name.removeprefix("front:")]})
    assert parent["search_id"] == "theirs"
    assert parent["run_id"]
    assert parent["uri"] == ours.tracking.uri
    shutil.rmtree(tmp_path / "cache")  # what the search needs is its own
    assert keep_earlier(settings, settings.search_directory) == {name: kept}


def test_searches_that_begin_at_once_share_one_copy_which_stays_until_its_search_has_ended_again(
    store: str, tmp_path: Path, downloads: list[tuple[str, str]]
) -> None:
    ours = search_settings(tmp_path / "runs", "own", store)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: auto_settings(ours), range(4)))
    assert all(one == found[0] for one in found)
    (place,) = fronts(found[0][0])
    client = make_client(ours.tracking.uri)
    run_id = run_of_faces(client).info.run_id
    assert downloads.count((run_id, TRIALS)) == 1
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    client.set_terminated(run_id)
    (newer,) = fronts(auto_settings(ours)[0])
    assert newer != place
    assert downloads.count((run_id, TRIALS)) == 2
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before
    (newer / TRIALS).unlink()
    assert fronts(auto_settings(ours)[0]) == [newer]
    assert downloads.count((run_id, TRIALS)) == 3


def test_a_search_that_is_named_is_not_found_as_well(store: str, tmp_path: Path) -> None:
    ours = search_settings(tmp_path / "runs", "own", store)
    elsewhere = stored(search_settings(tmp_path / "elsewhere", "faces", "tracking.uri=null"))
    shutil.copytree(elsewhere, tmp_path / "runs" / "copy" / "search")
    settings, line = auto_settings(warm_settings(ours, [elsewhere]))
    assert line.startswith("starts from digits (14 trials), found in MLflow")
    assert sorted(place.parent.name for place in fronts(settings)) == ["digits", "faces"]


def test_a_search_whose_files_lie_in_a_store_that_is_away_is_passed_over(store: str, tmp_path: Path) -> None:
    ours, client = search_settings(tmp_path / "runs", "own", store), make_client(store.removeprefix("tracking.uri="))
    found, uri = run_of_faces(client), ours.tracking.uri
    away = client.create_experiment("away", artifact_location="nowhere://bucket")
    run = client.create_run(away, tags=found.data.tags | {"search_id": "away", "mlflow.runName": "lost"})
    client.log_param(run.info.run_id, "solver", found.data.params["solver"])
    client.set_terminated(run.info.run_id)
    lines: list[str] = []
    line = auto_settings(ours, stage=lines.append)[1]
    client.delete_run(run.info.run_id)
    assert line.startswith(f"MLflow at {uri}: can't copy lost: Could not find a registered artifact repository")
    assert line.endswith(f"; starts from faces (14 trials), found in MLflow at {uri}")
    assert lines[:2] == [
        f"looking for earlier searches in MLflow at {uri}, 60 seconds at most",
        "reading lost, 1 of 5 searches in MLflow",
    ]


def test_copies_that_take_too_long_are_given_up_together(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enough, begun = threading.Event(), list[str]()

    def endless(client: MlflowClient, run_id: str, path: str, dst_path: str) -> None:
        begun.append(run_id)
        for number in range(10**6):
            if enough.is_set():
                return
            Path(dst_path).mkdir(parents=True, exist_ok=True)
            (Path(dst_path) / f"{number}").touch()

    monkeypatch.setattr(MlflowClient, "download_artifacts", endless)
    monkeypatch.setattr(searches_in_mlflow, "StoredSearches", partial(StoredSearches, all_seconds=1))
    ours = search_settings(tmp_path / "runs", "own", store)
    settings, line = auto_settings(ours)
    enough.set()
    assert settings == ours
    assert line.startswith(f"MLflow at {ours.tracking.uri} is too slow; no earlier search in {tmp_path / 'runs'} that")
    assert len(begun) <= 1


def test_a_search_in_the_folder_is_not_asked_for_in_the_store(store: str, tmp_path: Path) -> None:
    ours = search_settings(tmp_path / "runs", "own", store)
    stored(search_settings(tmp_path / "runs", "local", "tracking.uri=null"))
    line = auto_settings(ours)[1]
    assert line == f"starts from local (14 trials), found in {tmp_path / 'runs'}"


def test_what_is_listed_is_ordered_and_what_still_runs_or_is_known_is_not(store: str, tmp_path: Path) -> None:
    ours = search_settings(tmp_path / "runs", "own", store)
    theirs = StoredSearches(str(ours.tracking.uri))
    facts = {"encoding": "stages", "skip": "even", "widths": WIDTHS, "steps": STEPS, "solver": ours.sampler.solver}
    found = theirs.alike(facts, set())
    assert [(one.name, one.alike) for one in found[2:]] == [("faces", 5), ("digits", 4)]
    assert {one.name for one in found[:2]} == {"damaged", "lacking"}  # newer, and not RUNNING
    assert [theirs.copy(one, tmp_path / one.name) for one in found] == [one.name != "lacking" for one in found]
    known = {"lacking", "theirs", "newer and less alike"}
    assert [one.name for one in theirs.alike(facts, known)] == ["damaged"]
    assert theirs.problem == ""


def test_a_store_that_does_not_answer_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_PASSWORD", "hunter2")
    ours = search_settings(tmp_path, "own", "tracking.uri=http://me:${STORE_PASSWORD}@127.0.0.1:9")
    settings, line = auto_settings(ours)
    assert settings == ours
    assert "hunter2" not in line
    assert line.startswith("MLflow at http://me:***@127.0.0.1:9: no answer")
    assert line.endswith(f"; no earlier search in {tmp_path} that this one can start from; it starts without one")
    line = auto_settings(ours, in_folder=False)[1]
    assert line.endswith("correct tracking.uri; no earlier search that this one can start from; it starts without one")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = StoredSearches(f"http://127.0.0.1:{silent.getsockname()[1]}", list_seconds=0.2)
        assert store.alike({}, set()) == []
        assert store.problem.endswith("is too slow")
    missing = StoredSearches(f"sqlite:///{tmp_path / 'none.db'}")
    assert missing.alike({}, set()) == []
    assert missing.problem == ""
    assert not (tmp_path / "none.db").exists()


def test_runs_at_a_uri_are_looked_for_in_the_store_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"directory is a URI and tracking.uri is null: name the search"):
        auto_settings(search_settings(tmp_path, "own", "tracking.uri=null"), in_folder=False)


def test_the_grid_of_the_settings_tells_no_searches_apart_whose_sampler_brings_its_own() -> None:
    def space(solver: str, grid: str) -> dict[str, object]:
        return space_of(settings_from({"name": "x"}, [f"sampler.solver={solver}", f"sampler.grid={grid}"]))

    assert space("best", "trailing") == space("best", "quadratic") != space("learnt", "quadratic")
    assert space("ddim", "trailing") != space("ddim", "quadratic")
