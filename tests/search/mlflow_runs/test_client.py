"""MLflow's clients and addresses: a getter makes nothing, and a client that writes makes the folder of its store."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.kills.file_events import Watch, watching
from stepfront.search.mlflow_runs.client import (
    artifact_folder,
    get_existing,
    make_client,
    make_writing_client,
    tracking_uri,
)
from stepfront.search.mlflow_runs.open_client import set_environment


def test_artifacts_lie_beside_a_database_file_wherever_the_command_runs(tmp_path: Path) -> None:
    assert artifact_folder(f"sqlite:///{tmp_path}/mlflow.db") == (tmp_path / "mlartifacts").as_uri()
    assert artifact_folder("http://127.0.0.1:5000") is None


def test_an_address_is_made_absolute_and_makes_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert tracking_uri("sqlite:///runs/mlflow.db") == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert artifact_folder("sqlite:///runs/mlflow.db") == (tmp_path / "runs" / "mlartifacts").as_uri()
    assert tracking_uri("http://127.0.0.1:5000/") == "http://127.0.0.1:5000/"
    assert tracking_uri(None) is None
    assert list(tmp_path.iterdir()) == []


def test_a_client_that_writes_makes_the_folder_of_its_store(tmp_path: Path) -> None:
    set_environment()
    file = tmp_path / "new" / "mlflow.db"
    make_writing_client(f"sqlite:///{file}").search_experiments(max_results=1)
    assert file.exists()


def test_a_full_disk_is_an_error_without_a_logged_traceback(
    empty_store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from mlflow.exceptions import MlflowException

    shutil.copy(empty_store, tmp_path / "mlflow.db")
    client = make_client(f"sqlite:///{tmp_path / 'mlflow.db'}")
    with watching(Watch(tmp_path, "disk full", 1)), pytest.raises(MlflowException, match="disk is full"):
        client.create_experiment("mine")
    assert capfd.readouterr().err == ""
    client.create_experiment("mine")  # nothing of it was there


def test_what_a_store_does_not_have_is_none_and_other_errors_are_raised(empty_store: Path) -> None:
    from mlflow.exceptions import MlflowException

    client = make_client(f"sqlite:///{empty_store}")
    assert get_existing(lambda: client.get_run("0" * 32)) is None
    assert get_existing(lambda: client.get_experiment("0")) is not None
    with pytest.raises(MlflowException):
        get_existing(lambda: client.search_runs(["0"], "not a query"))
