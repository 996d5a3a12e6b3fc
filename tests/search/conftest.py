"""A tiny run on real digits that the tests of the whole path share, one finished search of it, and one Ray."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepfront.search.config import RunSettings, settings_from
from stepfront.search.driver.search import run_search
from stepfront.search.driver.train import run_training
from tests.search.at_once import workers_at_once

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"format": "digits", "limit": 300},
    "network": {"base": 8, "multipliers": [1, 2], "widths": [0.25, 0.5, 1.0]},
    "training": {"steps": 12, "batch": 16, "warmup": 2, "checkpoint_every": 5, "held_out_images": 32}
    | {"samples_every": 0},  # drawing them takes as long as the steps
    "features": {"name": "classifier", "classifier_epochs": 1, "examine": "skip"},
    "sampler": {"solver": "ddim", "grid": "trailing", "steps": 6},
    "space": {"stages": 3, "skip": False},
    "variation": {"population": 4},
    "budget": {"trials": 9},
    "evaluation": {"images": 32, "batch": 16, "noise_repeats": 0, "samplers": False},  # their tests say so
    "confirm": {"images": 32, "seeds": 2, "max_seeds": 2, "features": {"examine": "skip"}},
    "workers": {"count": 1, "engine": "plain"},  # which engine is quickest is a question to the engines' own tests
}


def tiny_settings(directory: Path, *overrides: str) -> RunSettings:
    """Return the tiny run below `directory`, without MLflow unless `overrides` say where it is (`own_store`).

    Each search with MLflow starts a process that writes to it, and each new store its migrations.
    """
    own = {"directory": str(directory), "tracking.uri": "null"}
    given = {override.partition("=")[0] for override in overrides}
    return settings_from(TINY, [*(f"{key}={own[key]}" for key in own.keys() - given), *overrides])


def own_store(directory: Path, empty_store: Path) -> str:
    """Return the override that gives a run below `directory` an MLflow store of its own."""
    shutil.copy(empty_store, directory / "mlflow.db")
    return f"tracking.uri=sqlite:///{directory / 'mlflow.db'}"


class Silent:
    """A view that shows nothing."""

    def update(self, report: object) -> None:
        """Show nothing."""


def do_search(directory: Path, *overrides: str, fresh: bool = False) -> Path:
    """Run the tiny search below `directory` to its end and return its directory."""
    return run_search(tiny_settings(directory, *overrides), fresh, Silent(), lambda text: None)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the tiny supernet, which is read and not written to."""
    directory = tmp_path_factory.mktemp("trained")
    run_training(tiny_settings(directory), False, lambda report: None, lambda text: None)
    return directory


@pytest.fixture(scope="session")
def searched(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a finished tiny search, which is read and not written to."""
    place = tmp_path_factory.mktemp("searched")
    shutil.copytree(trained / "tiny" / "supernet", place / "tiny" / "supernet")
    with workers_at_once():
        return do_search(place)


@pytest.fixture
def searched_copy(searched: Path, tmp_path: Path) -> Path:
    """Return a copy of that search, with its supernet, to write to: it is the run `tiny` below `tmp_path`."""
    return copy_of_search(searched, tmp_path)


def copy_of_search(searched: Path, place: Path) -> Path:
    """Copy the run of a search into `place`; return the directory of the search there."""
    return Path(shutil.copytree(searched.parent, place / searched.parent.name)) / searched.name


@pytest.fixture
def fresh(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of that directory to search in."""
    shutil.copytree(trained / "tiny" / "supernet", tmp_path / "tiny" / "supernet")
    return tmp_path


ON_RAY = set[Path]()
"""The files with a test that needs a `cluster`."""

_RAY = contextlib.ExitStack()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files on Ray first: the daemons of a Ray that waits for them take a twentieth of a processor."""
    ON_RAY.update(item.path for item in items if "cluster" in getattr(item, "fixturenames", ()))
    items.sort(key=lambda item: item.path not in ON_RAY)


@pytest.fixture(autouse=True, scope="module")
def at_once(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let what these tests search, score and confirm run without processes, in files without tests on a `cluster`."""
    with contextlib.nullcontext() if request.path in ON_RAY else workers_at_once():
        yield


@pytest.fixture(scope="module")
def cluster() -> None:
    """One Ray on this machine for all files in a row that need one."""
    from stepfront.search.config import WorkerSettings
    from stepfront.search.execution.ray_session import ray_session

    _RAY.enter_context(ray_session(WorkerSettings(count=2)))  # of two at once, the first stays


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """End Ray after the last test of the files that need one."""
    if nextitem is None or nextitem.path not in ON_RAY:
        _RAY.close()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an MLflow SQLite file without runs: copying it is far quicker than the migrations that make one."""
    from stepfront.search.mlflow_runs.client import make_client

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    make_client(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def diffusers_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let diffusers copy the programs of a pipeline's folder below `tmp_path` and import them from there."""
    pytest.importorskip("diffusers")
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "diffusers_modules"]:
        monkeypatch.delitem(sys.modules, name)  # those of an earlier test lie in its own folder
