"""`stepfront ui`: which server, and that Ctrl-C and SIGTERM leave none behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from benchmarks.tracking import made_up_search
from stepfront.environment import SOURCE_ROOT
from stepfront.errors import InputError
from stepfront.search.config import save_settings, settings_from
from stepfront.search.tracking.search_mirror import SearchMirror
from stepfront.search.tracking.server import open_ui, server_address, server_command
from stepfront.tables.parquet import write_table
from stepfront.tables.schema import FRONT, PROGRESS, TRIALS


def make_search(directory: Path, uri: str | None) -> Path:
    """Return a search of made-up trials, and its runs in MLflow."""
    settings = settings_from({"name": "made-up", "directory": str(directory), "tracking": {"uri": uri}})
    search, whole = settings.search_directory, made_up_search(4)
    for name, table in ((TRIALS, whole.trials), (PROGRESS, whole.progress), (FRONT, whole.front)):
        write_table(table, search / name)
    (search / "search.json").write_text(json.dumps(dict(whole.facts)))
    save_settings(settings, search / "settings.yaml")
    if uri and uri.startswith("sqlite"):
        assert SearchMirror(settings, search).close(whole, search, True) == ""
    return search


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_server_listens_on_loopback_has_one_worker_and_checks_hosts() -> None:
    command = server_command("sqlite:////x/mlflow.db", "127.0.0.1", 5000)
    given = dict(zip(command[4::2], command[5::2], strict=True))
    assert given["--host"] == "127.0.0.1"
    assert given["--workers"] == "1"
    assert given["--default-artifact-root"] == "file:///x/mlartifacts"
    assert set(given["--allowed-hosts"].split(",")) == {"127.0.0.1", "127.0.0.1:*", "localhost", "localhost:*"}
    assert server_address("postgresql://db/mlflow", "10.0.0.2", 81) == "http://10.0.0.2:81"


def test_what_can_not_be_shown_is_said_in_a_line(tmp_path: Path, empty_store: Path) -> None:
    with pytest.raises(InputError, match="tracking is disabled for this search"):
        open_ui(make_search(tmp_path / "a", None), "127.0.0.1", 5000, print)
    with pytest.raises(InputError, match="not in MLflow yet; run `stepfront sync"):
        open_ui(make_search(tmp_path / "b", "http://127.0.0.1:9"), "127.0.0.1", 5000, print)
    shutil.copy(empty_store, tmp_path / "c.db")
    search = make_search(tmp_path / "c", f"sqlite:///{tmp_path / 'c.db'}")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match=r"can't listen on 127.0.0.1:\d+ .*; give another --port"):
            open_ui(search, "127.0.0.1", taken.getsockname()[1], print)


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_command_and_its_server(
    tmp_path: Path, empty_store: Path, sign: signal.Signals, code: int
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    search, port = make_search(tmp_path, f"sqlite:///{tmp_path / 'mlflow.db'}"), free_port()
    command = [sys.executable, "-m", "stepfront", "ui", str(search), "--port", str(port)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(SOURCE_ROOT)}
    shown = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, preexec_fn=_hear_interrupts
    )
    assert shown.stdout is not None
    try:
        assert "press Ctrl-C to end it" in shown.stdout.readline()
        link = shown.stdout.readline().strip()
        assert link.startswith(f"http://127.0.0.1:{port}/#/experiments/1/runs?")
        assert b"<title>MLflow</title>" in urllib.request.urlopen(f"http://127.0.0.1:{port}/").read()
        foreign = urllib.request.Request(f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get?experiment_id=1")
        foreign.add_header("Host", "evil.example")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(foreign)
        shown.send_signal(sign)
        assert shown.wait(120) == code
    finally:
        shown.terminate()  # where an assertion failed: the command then ends its server
        shown.wait(120)
        shown.stdout.close()
    with contextlib.closing(socket.socket()) as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", port))


def _hear_interrupts() -> None:
    # A test run in the background of a shell has Ctrl-C ignored, and its children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
