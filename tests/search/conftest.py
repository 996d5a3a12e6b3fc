"""A tiny run on real digits that the tests of the whole path share, and one Ray for all of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepfront.search.config import RunSettings, settings_from
from stepfront.search.driver.train import run_training

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"format": "digits", "limit": 300},
    "network": {"base": 8, "multipliers": [1, 2], "widths": [0.25, 0.5, 1.0]},
    "training": {"steps": 12, "batch": 16, "warmup": 2, "checkpoint_every": 5, "held_out_images": 32},
    "features": {"name": "classifier", "classifier_epochs": 1, "examine": "skip"},
    "sampler": {"solver": "ddim", "grid": "trailing", "steps": 6},
    "space": {"stages": 3, "skip": False},
    "variation": {"population": 4},
    "budget": {"trials": 9},
    "evaluation": {"images": 32, "batch": 16, "noise_repeats": 0, "samplers": False},  # their tests say so
    "confirm": {"images": 32, "seeds": 2, "max_seeds": 2, "features": {"examine": "skip"}},
    "workers": {"count": 1},  # each is a process to start; tests that need two say so
}


def tiny_settings(directory: Path, *overrides: str) -> RunSettings:
    """Return the tiny run below `directory`, with MLflow in a SQLite file of its own unless `overrides` say where."""
    own = [f"directory={directory}", f"tracking.uri=sqlite:///{directory / 'mlflow.db'}"]
    given = {override.partition("=")[0] for override in overrides}
    return settings_from(TINY, [*(each for each in own if each.partition("=")[0] not in given), *overrides])


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """Return a directory with the tiny supernet."""

    directory = tmp_path_factory.mktemp("trained")
    shutil.copy(empty_store, directory / "mlflow.db")
    run_training(tiny_settings(directory), False, lambda report: None, lambda text: None)
    return directory


@pytest.fixture
def fresh(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of that directory to search in."""
    shutil.copytree(trained / "tiny" / "supernet", tmp_path / "tiny" / "supernet")
    return tmp_path


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """One Ray on this machine for all tests that need one."""
    from stepfront.search.config import WorkerSettings
    from stepfront.search.execution.ray_session import ray_session

    with ray_session(WorkerSettings(count=2)):
        yield


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an MLflow SQLite file without runs: copying it is far quicker than the migrations that make one."""
    from stepfront.search.mlflow_runs.client import make_client

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    make_client(f"sqlite:///{path}").search_experiments()
    return path
