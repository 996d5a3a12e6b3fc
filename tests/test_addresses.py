"""Addresses in settings: a password is named, never held, and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy
import yaml

from stepfront.addresses import only_address, redacted, resolved, shown, without_literal_secret
from stepfront.errors import InputError
from stepfront.search.config import load_settings, save_settings, settings_from

TABLE = {
    # address: what is shown of it; *** stands for what is refused
    "postgresql://me:hunter2@db/stepfront": "postgresql://me:***@db/stepfront",
    "postgresql+psycopg2://me:hun/ter2@db:5432/stepfront": "postgresql+psycopg2://me:***@db:5432/stepfront",
    "postgresql://me:hun ter2@db/x": "postgresql://me:***@db/x",
    "postgresql://me:hun?ter2@db/x": "postgresql://me:***@db/x",
    "postgresql://me:hun#ter2@db/x": "postgresql://me:***@db/x",
    "postgresql://me:hun;ter2@db/x": "postgresql://me:***@db/x",
    "postgresql://me:hun@ter2@db/x": "postgresql://me:***@db/x",
    "postgresql://me:12/34ter2@db/x": "postgresql://me:***@db/x",
    "postgresql://me:hunter2${MORE}@db/x": "postgresql://me:***@db/x",
    "postgresql://me:hunter2$MORE@db/x": "postgresql://me:***@db/x",
    "postgresql://me%3Ahunter2@db/x": "postgresql://***@db/x",
    "jdbc:postgresql://me:hunter2@db/x": "jdbc:postgresql://me:***@db/x",
    "redis://:hunter2@h:6379/0": "redis://:***@h:6379/0",
    "https://me:hunter2@mlflow.example.com": "https://me:***@mlflow.example.com",
    "https://hunter2@mlflow.example.com": "https://***@mlflow.example.com",
    "https://hunter2:@mlflow.example.com": "https://***:@mlflow.example.com",
    "postgresql://glpat-a1b2c3hunter2d4e5f6@db/x": "postgresql://***@db/x",
    "s3://AKIAIOSFODNN7hunter2:${SECRET}@bucket/r": "s3://***:***@bucket/r",
    "https://proxy/https://me:hunter2@h/": "https://proxy/https://me:***@h/",
    "postgresql://db/x?user=me&password=hunter2": "postgresql://db/x?user=me&password=***",
    "postgresql://db/x?pwd=hunter2": "postgresql://db/x?pwd=***",
    "postgresql://db/x?PassWord=hunter2": "postgresql://db/x?PassWord=***",
    "postgresql://db/x?p%61ssword=hunter2": "postgresql://db/x?p%61ssword=***",
    "postgresql://db/x?password=hun&ter2": "postgresql://db/x?password=***&***",
    "postgresql://db/x?password=hun#ter2": "postgresql://db/x?password=***#***",
    "postgresql://db/x?options=-cpassword%3Dhunter2": "postgresql://db/x?options=***",
    "postgresql://me:${PW}@db/x?password=hunter2": "postgresql://me:***@db/x?password=***",
    "postgresql://me:hunter2@db/x?password=${PW}": "postgresql://me:***@db/x?password=***",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3Da%3BPWD%3Dhunter2": "mssql+pyodbc:///?odbc_connect=***",
    "mssql://db;user=me;password=hunter2": "mssql://db;user=me;password=***",
    "https://h/c?sig=hunter2": "https://h/c?sig=***",
    "https://h/c?sas=hunter2": "https://h/c?sas=***",
    "https://h/c?hunter2": "https://h/c?***",
    "https://h/?access_token=hunter2": "https://h/?access_token=***",
    "https://h/?api_key=hunter2": "https://h/?api_key=***",
    "https://h/?nobody-knows-this=hunter2": "https://h/?nobody-knows-this=***",
    "https://h/#password=hunter2": "https://h/#password=***",
    "abfs://c@a.dfs.core.windows.net/r?account_key=hunter2": "abfs://c@a.dfs.core.windows.net/r?account_key=***",
    "s3://b/r?access_key=hunter2&region=eu": "s3://b/r?access_key=***&region=eu",
    "s3://b/r?endpoint_override=http://me:hunter2@h:9000": "s3://b/r?endpoint_override=***",
    "s3://b/r?endpoint_override=http%3A%2F%2Fme%3Ahunter2%40h": "s3://b/r?endpoint_override=***",
    # what can't be taken apart
    "postgresql://me:hunter2/x": "postgresql://***",
    "https://me:123/hunter2@mlflow": "https://***",
    "1bad://me:hunter2@h": "1bad://***",
    "my scheme://me:hunter2@h": "my scheme://***",
    "postgresql://[hunter2:5432/x": "postgresql://***",
}
NAMED = {
    "postgresql://me:${DB_PASSWORD}@db/stepfront": "postgresql://me:***@db/stepfront",
    "postgresql://${ME}:${DB_PASSWORD}@${DB}:${PORT}/x": "postgresql://${ME}:***@${DB}:${PORT}/x",
    "postgresql://db/stepfront?user=me&password=${DB_PASSWORD}": "postgresql://db/stepfront?user=me&password=***",
    "https://${TOKEN}@mlflow.example.com": "https://${TOKEN}@mlflow.example.com",
    "https://a.blob.core.windows.net/c?${SAS}": "https://a.blob.core.windows.net/c?***",
} | {
    address: address
    for address in (
        "postgresql://me@db/stepfront",
        "postgresql://me@h1:5432,h2:5432/x?target_session_attrs=any&sslmode=require",
        "postgresql:///x?host=/var/run/postgresql",
        "postgresql://[::1]:5432/x",
        "s3://bucket/runs/a@b?region=eu-west-1&endpoint_override=localhost:9000&scheme=http",
        "abfs://container@account.dfs.core.windows.net/runs",
        "http://127.0.0.1:5000",
        "http://127.0.0.1:5000/team@home",
        "http://127.0.0.1:5000/#/experiments/1",
        "sqlite:////srv/runs/mlflow.db",
        "sqlite:////srv/a#b?/me:x@y.db",
        "file:///srv/me:x@y/runs",
        "databricks://profile",
        "${DATABASE}",
        "databricks",
    )
}


@pytest.mark.parametrize("address", TABLE)
def test_what_may_be_a_secret_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(ValueError, match=r"\$\{NAME\}") as caught:
        without_literal_secret(address)
    said = str(caught.value)
    assert said.startswith(TABLE[address])
    assert "ter2" not in said
    assert "\n" not in said
    assert shown(address) == TABLE[address]
    assert "ter2" not in redacted(f"at {address}: refused")


@pytest.mark.parametrize("address", NAMED)
def test_what_is_harmless_or_named_is_taken(address: str) -> None:
    assert without_literal_secret(address) == only_address(address) == address
    assert shown(address) == NAMED[address]
    assert redacted(f"at {address}: refused") == f"at {NAMED[address]}: refused"


@pytest.mark.parametrize("key", ["storage", "tracking.uri", "directory", "supernet", "training.checkpoints"])
@pytest.mark.parametrize("address", ["postgresql://me:hunter2@db/x", "s3://b/r?sig=hunter2"])
def test_every_setting_is_guarded(key: str, address: str) -> None:
    with pytest.raises(InputError) as caught:
        settings_from({}, [f"{key}={address}"])
    said = str(caught.value)
    assert said.startswith(f"--set: {key}: ")
    assert "${NAME}" in said
    assert "ter2" not in said


@pytest.mark.parametrize(
    "override",
    ["name=https://me:hunter2@h", "initial_plans={'front:s3://b/r?sig=hunter2': 2}", "data.size=https://h?sig=hunter2"],
)
def test_an_address_in_any_other_setting_shows_no_secret(override: str) -> None:
    with pytest.raises(InputError) as caught:
        settings_from({}, [override])
    assert "ter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["me:hunter2@db/x", "Driver=x;PWD=hunter2", "postgresql:me:hunter2@db", "host=db pw=hunter2"]
)
def test_what_is_no_address_of_a_database_is_refused_and_not_repeated(text: str) -> None:
    for key in ("storage", "tracking.uri"):
        with pytest.raises(InputError, match=r"can't be read as an address") as caught:
            settings_from({key.partition(".")[0]: {"uri": text} if "." in key else text})
        assert "ter2" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["postgresql://me:${DB_PASSWORD}@db/x", "http://127.0.0.1:5000", "${DATABASE}", "databricks"]
)
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
    password = "p@ss/w:rd &+=%${NOT_A_NAME}"
    monkeypatch.setenv("DB_PASSWORD", password)
    monkeypatch.setenv("DB_HOST", "db.example.com:5433")
    url = sqlalchemy.engine.make_url(resolved("postgresql://me:${DB_PASSWORD}@${DB_HOST}/stepfront"))
    assert (url.password, url.host, url.port, url.username) == (password, "db.example.com", 5433, "me")
    url = sqlalchemy.engine.make_url(resolved("postgresql://db/x?user=me&password=${DB_PASSWORD}&host=${DB_HOST}"))
    assert dict(url.query) == {"user": "me", "password": password, "host": "db.example.com:5433"}
    monkeypatch.setenv("WHOLE", "postgresql://me:a%20b@db/x")
    assert resolved("${WHOLE}") == "postgresql://me:a%20b@db/x"


def test_a_name_that_is_not_set_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DB_PASSWORD", raising=False)
    with pytest.raises(InputError, match=r"\$\{DB_PASSWORD\}, which this environment does not set"):
        resolved("postgresql://me:${DB_PASSWORD}@db/stepfront")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at postgresql://me:hun ter2@db/x now", "at postgresql://me:***@db/x now"),
        ("see http://127.0.0.1:5000: refused (https://h?a=b)", "see http://127.0.0.1:5000: refused (https://h?a=***)"),
        ("connection failed: password=hunter2, host=db", "connection failed: password=***, host=db"),
        ("can't reach http://me:hunter2@db:5000/api now", "can't reach http://me:***@db:5000/api now"),
        ("postgresql://db/x?user=me&password=hunter2&a=b", "postgresql://db/x?user=me&password=***&a=***"),
        ("https://db/x?api_token=hunter2", "https://db/x?api_token=***"),
        ("http://127.0.0.1:5000 at 12:30, me@example.com", "http://127.0.0.1:5000 at 12:30, me@example.com"),
    ],
)
def test_passwords_are_hidden_in_any_text(text: str, expected: str) -> None:
    assert redacted(text) == expected


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
