"""Open the MLflow UI of a search: start a server where one is needed, and print the link to the front."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from stepfront.addresses import resolved, shown
from stepfront.errors import InputError
from stepfront.search.mlflow_runs.client import (
    artifact_folder,
    check_store_exists,
    get_existing,
    make_client,
    tracking_uri,
)
from stepfront.search.mlflow_runs.copies import read_own_note
from stepfront.search.mlflow_runs.open_client import set_environment
from stepfront.search.mlflow_runs.states import explained
from stepfront.search.mlflow_runs.written import WrittenSearch
from stepfront.search.records.run_directory import find_search
from stepfront.search.tracking.saved_view import view_path
from stepfront.sqlite_files import client_url, sqlite_file
from stepfront.tables.facts import search_id_of
from stepfront.tables.search_tables import read_snapshot

HOST, PORT = "127.0.0.1", 5000
START_SECONDS = 180.0


def server_address(uri: str, host: str = HOST, port: int = PORT) -> str:
    """Return the address of a tracking store's server: its own, or the one that `open_ui` starts for a database."""
    return uri.rstrip("/") if uri.startswith(("http://", "https://")) else f"http://{host}:{port}"


def ui_link(server: str, experiment_id: str, search_id: str) -> str:
    """Return the link that opens on the search's saved view."""
    return server + view_path(experiment_id, search_id)


def server_command(uri: str, host: str, port: int) -> list[str]:
    """Return the command of an MLflow server on a database.

    It has one worker: with more, uvicorn waits 40 ms before each answer.  It refuses requests that name another host,
    so that no page of another origin can reach it.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    if (file := sqlite_file(uri)) is not None:
        command += ["--backend-store-uri", client_url(file)]
    elif "${" not in uri:  # a password must not be in the list of processes: `server_environment` holds it
        command += ["--backend-store-uri", uri]
    if (artifacts := artifact_folder(uri)) is not None:
        command += ["--default-artifact-root", artifacts]
    names = {host, "localhost", "127.0.0.1"} | ({socket.gethostname()} if host in ("0.0.0.0", "::") else set())
    return [*command, "--allowed-hosts", ",".join(f"{name}{end}" for name in sorted(names) for end in ("", ":*"))]


def open_ui(path: Path, host: str, port: int, show: Callable[[str], None]) -> None:
    """Show the link to the search's view; for a database, run a server until it is interrupted.

    Raises InputError when the search is not in MLflow, the port is taken, or the server does not start.
    """
    directory, settings = find_search(path)
    uri = tracking_uri(settings.tracking.uri)
    if uri is None:
        raise InputError(
            "MLflow tracking is disabled for this search (tracking.uri: null), so there is nothing to show"
        )
    check_store_exists(uri)
    written = read_own_note(directory, WrittenSearch, uri)
    search_id = written.id_in_mlflow(search_id_of(read_snapshot(directory).facts))
    if not written.run_id:
        raise InputError(f"the search in {directory} is not in MLflow yet; run `stepfront sync {path}` first")
    _check_run(uri, written.run_id, path)
    reached = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    link = ui_link(server_address(uri, reached, port), written.experiment_id, search_id)
    if server_address(uri) == uri.rstrip("/"):
        show(link)
        return
    _check_port(host, port)
    _serve(uri, host, port, link, show)


def _check_run(uri: str, run_id: str, path: Path) -> None:
    """Raise InputError where a link to the run would be dead: no such run, no permission, or no answer."""
    set_environment()
    try:
        run = get_existing(lambda: make_client(uri).get_run(run_id))
    except Exception as error:  # whatever MLflow, its database or its server raises
        raise InputError(f"MLflow at {shown(uri)}: {explained(error, uri)}") from None
    if run is None or run.info.lifecycle_stage == "deleted":
        what = "does not have" if run is None else "has deleted"
        raise InputError(f"MLflow at {shown(uri)} {what} the run of this search; run `stepfront sync {path}` first")


def _serve(uri: str, host: str, port: int, link: str, show: Callable[[str], None]) -> None:
    """Run a server, show the link once it answers, and end it with this process, at Ctrl-C or SIGTERM."""
    set_environment()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        # In a session of its own, so that Ctrl-C does not reach the server directly and end it a second time.
        server = subprocess.Popen(
            server_command(uri, host, port), stdout=log, stderr=log, env=server_environment(uri), start_new_session=True
        )
        # A signal that ends this process ends the server, too.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        try:
            show("starting the MLflow server; press Ctrl-C to end it")
            _wait_until_up(server, f"{link.partition('/#')[0]}/health")
            show(link)
            server.wait()
            raise InputError(f"the MLflow server ended: {_last_line(log)}")
        except _NotUpError:
            raise InputError(f"the MLflow server did not start: {_last_line(log)}") from None
        except KeyboardInterrupt:
            show("the MLflow server has ended")
        finally:
            _end(server)


def server_environment(uri: str = "") -> dict[str, str]:
    """Return the server's environment, without MLflow's background jobs: ten processes that the UI does not need."""
    store = {"MLFLOW_BACKEND_STORE_URI": resolved(uri)} if "${" in uri else {}
    return os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | store


class _NotUpError(Exception):
    """Report that the server did not start."""


def _check_port(host: str, port: int) -> None:
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InputError(f"can't listen on {host}:{port} ({error.strerror}); give another --port") from None


def _wait_until_up(server: subprocess.Popen[bytes], address: str) -> None:
    until = time.monotonic() + START_SECONDS
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < until:
        if server.poll() is not None:
            raise _NotUpError
        with contextlib.suppress(urllib.error.URLError, OSError), direct.open(address, timeout=5):
            return
        time.sleep(0.2)
    raise _NotUpError


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _last_line(log: object) -> str:
    log.seek(0)  # type: ignore[attr-defined]
    lines = [line for line in log.read().splitlines() if line.strip()]  # type: ignore[attr-defined]
    return str(lines[-1]) if lines else "it printed nothing"
