"""`--from auto` in the tracking store: what is found by its space is used, and a store that is away is one line."""

from __future__ import annotations

import json
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.tracking import STAGES, STEPS, made_up_search
from stepfront.errors import InputError
from stepfront.search.config import RunSettings, save_settings, settings_from
from stepfront.search.earlier.found_searches import auto_settings
from stepfront.search.earlier.kept_tables import keep_earlier, read_steps
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


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> str:
    """Return the override of a store with two searches of another machine, whose folders are gone."""
    place = tmp_path_factory.mktemp("server")
    uri, theirs = own_store(place, empty_store), place / "theirs"
    stored(search_settings(theirs, "faces", uri))
    stored(search_settings(theirs, "digits", uri, "sampler.steps=40"), search_id="newer and less alike")
    shutil.rmtree(theirs)
    client = make_client(uri.removeprefix("tracking.uri="))
    (found,) = client.search_runs([e.experiment_id for e in client.search_experiments()], "run_name = 'faces'")
    for name, status in (("damaged", "FINISHED"), ("lacking", "FINISHED"), ("running", "RUNNING")):
        tags = found.data.tags | {"search_id": name, "mlflow.runName": name}
        run = client.create_run(found.info.experiment_id, tags=tags)
        client.log_param(run.info.run_id, "solver", found.data.params["solver"])
        for file in NEEDED if name == "damaged" else NEEDED[:2]:
            client.log_text(run.info.run_id, "name: [", file)
        client.update_run(run.info.run_id, status=status, name=name)
    return uri


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
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = StoredSearches(f"http://127.0.0.1:{silent.getsockname()[1]}", answer=0.2)
        assert store.alike({}, set()) == []
        assert store.problem.endswith("is too slow")
    missing = StoredSearches(f"sqlite:///{tmp_path / 'none.db'}")
    assert missing.alike({}, set()) == []
    assert missing.problem == ""
    assert not (tmp_path / "none.db").exists()


def test_runs_at_a_uri_are_looked_for_in_the_store_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"directory is a URI and tracking.uri is null: name the search"):
        auto_settings(search_settings(tmp_path, "own", "tracking.uri=null"), in_folder=False)
