"""Addresses in settings: a password is named, never held, and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy
import yaml

from stepfront.addresses import redacted, resolved
from stepfront.errors import InputError
from stepfront.search.config import load_settings, save_settings, settings_from

HELD = [
    "postgresql://me:hunter2@db/stepfront",
    "postgresql+psycopg2://me:hun/ter2@db:5432/stepfront",
    "https://me:hunter2@mlflow.example.com",
    "postgresql://db/stepfront?user=me&password=hunter2",
    "postgresql://me:hunter2${MORE}@db/stepfront",
    "https://mlflow.example.com/?access_token=hunter2",
]
NAMED = [
    "postgresql://me:${DB_PASSWORD}@db/stepfront",
    "postgresql://me@db/stepfront",
    "postgresql://db/stepfront?user=me&password=${DB_PASSWORD}",
    "http://127.0.0.1:5000",
    "http://127.0.0.1:5000/team@home",
    "sqlite:////srv/runs/mlflow.db",
    "${DATABASE}",
    "databricks",
]


@pytest.mark.parametrize("address", HELD)
@pytest.mark.parametrize("key", ["storage", "tracking.uri", "directory", "supernet"])
def test_a_password_in_an_address_is_refused_and_not_repeated(key: str, address: str) -> None:
    with pytest.raises(InputError) as caught:
        settings_from({}, [f"{key}={address}"])
    said = str(caught.value)
    assert said.startswith(f"--set: {key}: ")
    assert "${NAME}" in said
    assert "ter2" not in said


@pytest.mark.parametrize("address", NAMED)
def test_a_name_is_written_down_as_it_is(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    monkeypatch.setenv("DATABASE", "postgresql://me:hunter2@db/stepfront")
    settings = settings_from({"storage": address, "tracking": {"uri": address}})
    save_settings(settings, tmp_path / "settings.yaml")
    text = (tmp_path / "settings.yaml").read_text()
    assert "hunter2" not in text
    assert load_settings(tmp_path / "settings.yaml") == settings
    assert yaml.safe_load(text)["storage"] == address


def test_values_reach_the_client_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    password = "p@ss/w:rd %${NOT_A_NAME}"
    monkeypatch.setenv("DB_PASSWORD", password)
    monkeypatch.setenv("DB_HOST", "db.example.com:5433")
    url = sqlalchemy.engine.make_url(resolved("postgresql://me:${DB_PASSWORD}@${DB_HOST}/stepfront"))
    assert (url.password, url.host, url.port, url.username) == (password, "db.example.com", 5433, "me")
    monkeypatch.setenv("WHOLE", "postgresql://me:a%20b@db/x")
    assert resolved("${WHOLE}") == "postgresql://me:a%20b@db/x"


def test_a_name_that_is_not_set_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DB_PASSWORD", raising=False)
    with pytest.raises(InputError, match=r"\$\{DB_PASSWORD\}, which this environment does not set"):
        resolved("postgresql://me:${DB_PASSWORD}@db/stepfront")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("can't reach http://me:hunter2@db:5000/api now", "can't reach http://me:***@db:5000/api now"),
        ("postgresql://db/x?user=me&password=hunter2&a=b", "postgresql://db/x?user=me&password=***&a=b"),
        ("https://db/x?api_token=hunter2", "https://db/x?api_token=***"),
        ("http://127.0.0.1:5000 at 12:30, me@example.com", "http://127.0.0.1:5000 at 12:30, me@example.com"),
    ],
)
def test_passwords_are_hidden_in_any_text(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_an_absent_database_is_said_without_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stepfront.search.study.optuna_storage import open_storage

    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    with pytest.raises(InputError) as caught:
        open_storage("postgresql://me:${DB_PASSWORD}@127.0.0.1:9/stepfront", tmp_path)
    assert "me:***@127.0.0.1:9/stepfront can't be opened" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_an_absent_tracking_server_is_said_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pandas as pd

    from stepfront.search.mlflow_runs.client import make_client
    from stepfront.search.tracking.search_mirror import SearchMirror
    from stepfront.tables.search_tables import Snapshot

    monkeypatch.setenv("MLFLOW_PASSWORD", "hunter2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = "http://me:${MLFLOW_PASSWORD}@127.0.0.1:9"
    with pytest.raises(Exception, match=r"127\.0\.0\.1") as raw:  # the test's own premise: MLflow's error shows it
        make_client(uri).search_experiments()
    assert "hunter2" in str(raw.value)
    mirror = SearchMirror(settings_from({}, [f"tracking.uri={uri}"]), tmp_path)
    nothing = Snapshot(pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), {"search_id": "0"})
    problem = mirror.close(nothing, tmp_path, finished=True)
    assert "127.0.0.1:9" in problem
    assert "hunter2" not in problem


def test_the_mlflow_servers_command_line_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    from stepfront.search.tracking.server import server_command, server_environment

    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    uri = "postgresql://me:${DB_PASSWORD}@db/mlflow"
    command = server_command(uri, "127.0.0.1", 5000)
    assert "--backend-store-uri" not in command
    assert "hunter2" not in " ".join(command)
    assert server_environment(uri)["MLFLOW_BACKEND_STORE_URI"] == "postgresql://me:hunter2@db/mlflow"
