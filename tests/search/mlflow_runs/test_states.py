"""What MLflow's users do to experiments and runs: deleted ones are one line, and are restored when asked."""

from __future__ import annotations

import re
import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stepfront.errors import InputError
from stepfront.files import write_text
from stepfront.search.mlflow_runs.background import BackgroundWriter
from stepfront.search.mlflow_runs.client import check_store_exists, make_client, make_writing_client
from stepfront.search.mlflow_runs.local_store import create_store
from stepfront.search.mlflow_runs.states import (
    check_experiment,
    ensure_active,
    explained,
    is_refusal,
    usable_experiment,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> Path:
    """Return a store with one run and one artifact."""
    file = tmp_path / "before" / "mlflow.db"
    file.parent.mkdir()
    shutil.copy(empty_store, file)
    client = make_client(f"sqlite:///{file}")
    experiment = client.create_experiment("mine", (file.parent / "mlartifacts").as_uri())
    run = client.create_run(experiment)
    # By hand: a process of MLflow remembers where it has written, and the moved store is used by another one.
    write_text(file.parent / "mlartifacts" / run.info.run_id / "artifacts" / "note.txt", "x")
    return file


def one_run(client: MlflowClient) -> str:
    (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id], run_view_type=3)
    return str(run.info.run_id)


def test_a_deleted_experiment_is_one_line_and_restored_when_asked(store: Path) -> None:
    client = make_client(f"sqlite:///{store}")
    run = client.get_run(one_run(client))
    assert check_experiment(client, "mine", "now") == "the experiment 'mine' can be written"
    assert check_experiment(client, "other", "now") == "the experiment 'other' will be made"
    client.delete_experiment(run.info.experiment_id)
    for check in (lambda: check_experiment(client, "mine", "now"), lambda: ensure_active(client, run, mend=False)):
        with pytest.raises(InputError, match="was deleted in MLflow; `stepfront sync`"):
            check()
    ensure_active(client, client.get_run(run.info.run_id), mend=True)
    assert usable_experiment(client, "mine", mend=False).lifecycle_stage == "active"  # type: ignore[union-attr]
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "active"


def test_a_deleted_run_is_one_line_and_restored_when_asked(store: Path) -> None:
    client = make_client(f"sqlite:///{store}")
    run_id = one_run(client)
    client.delete_run(run_id)
    with pytest.raises(InputError, match="its run was deleted in MLflow; `stepfront sync` restores it"):
        ensure_active(client, client.get_run(run_id), mend=False)
    ensure_active(client, client.get_run(run_id), mend=True)
    assert client.get_run(run_id).info.lifecycle_stage == "active"


def test_artifacts_are_found_after_the_store_has_moved(store: Path, tmp_path: Path) -> None:
    run_id = one_run(make_client(f"sqlite:///{store}"))
    after = tmp_path / "a %2F b?c#d"
    store.parent.rename(after)
    client = make_client(f"sqlite:///{after / 'mlflow.db'}")
    assert [one.path for one in client.list_artifacts(run_id)] == ["note.txt"]
    write_text(tmp_path / "note.txt", "x")
    client.log_artifact(run_id, str(tmp_path / "note.txt"), "more")
    assert (after / "mlartifacts" / run_id / "artifacts" / "more" / "note.txt").exists()
    assert not store.parent.exists()


@pytest.mark.parametrize(
    ("damage", "remedy"),
    [
        ("UPDATE alembic_version SET version_num = 'of the future'", "newer MLflow"),
        ("DROP TABLE experiments", "move .* aside"),
    ],
)
def test_a_store_of_another_version_or_half_made_has_a_remedy(store: Path, damage: str, remedy: str) -> None:
    copy = store.with_name("copy.db")  # MLflow remembers the first by its address
    shutil.copy(store, copy)
    with sqlite3.connect(copy) as database:
        database.execute(damage)
    database.close()
    writer = BackgroundWriter(f"sqlite:///{copy}", lambda client: client)
    assert not writer.write(lambda client: check_experiment(client, "mine", "now") and None)
    assert re.search(remedy, writer.problem)
    assert "\n" not in writer.problem


def test_errors_of_servers_have_remedies() -> None:
    assert "tracking.experiment" in explained(RuntimeError("response: 403 Permission denied"), "http://server")
    assert "MLFLOW_TRACKING_USERNAME" in explained(RuntimeError("API request failed with error code 401"), "http://s")
    for text in ("Run with id=5b40317e401 not found", "no /runs/403/tags", "no answer of s:401"):
        assert explained(RuntimeError(text), "http://s") == text
        assert not is_refusal(RuntimeError(text))
    assert is_refusal(RuntimeError("failed with error code 403 != 200"))
    unreachable = RuntimeError(
        "API request to http://s:4030/api failed with HTTPConnectionPool(host='s', port=4030): Max retries "
        "exceeded with url: /api (Caused by NewConnectionError(Failed to establish a "
        "new connection: [Errno 111] Connection refused))"
    )
    answer = "no answer (Connection refused); start the server, or correct tracking.uri"
    assert explained(unreachable, "http://s:4030") == answer
    assert explained(RuntimeError("something else"), None) == "something else"


def test_a_new_store_is_complete_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stepfront.search.mlflow_runs import local_store

    file = tmp_path / "mlflow.db"

    def full(uri: str) -> None:
        Path(uri.removeprefix("sqlite:///")).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(local_store, "open_client", full)
        with pytest.raises(OSError, match="No space"):
            create_store(file)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="there is no MLflow database"):
        check_store_exists(f"sqlite:///{file}")


def test_no_folder_is_made_below_one_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be made"):
        make_writing_client(f"sqlite:///{tmp_path}/old/home/mlflow.db")
    assert list(tmp_path.iterdir()) == []
