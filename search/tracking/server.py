"""The MLflow UI of a search: where its runs are in; the right server, and the link that opens on the front, out."""

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

from stepfront.addresses import resolved
from stepfront.errors import InputError
from stepfront.search.records.run_directory import find_search
from stepfront.search.tracking.mirror import artifact_folder, read_state, set_environment, tracking_uri
from stepfront.search.tracking.saved_view import view_path
from stepfront.tables.search_tables import read_snapshot

HOST, PORT = "127.0.0.1", 5000
START_SECONDS = 180.0


def server_of(uri: str, host: str = HOST, port: int = PORT) -> str:
    """The address of the server that shows a tracking store: its own, or one that `open_ui` starts for a database."""
    return uri.rstrip("/") if uri.startswith(("http://", "https://")) else f"http://{host}:{port}"


def ui_link(server: str, experiment_id: str, search_id: str) -> str:
    """The link that opens on the search's saved view."""
    return server + view_path(experiment_id, search_id)


def server_command(uri: str, host: str, port: int) -> list[str]:
    """MLflow's server on a database, one worker: with more, uvicorn waits 40 ms before each answer.

    The host check refuses requests that name another host, so that no page of another origin can reach the server.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    if "${" not in uri:  # a password is not for the list of processes: `server_environment` holds it
        command += ["--backend-store-uri", uri]
    if (artifacts := artifact_folder(uri)) is not None:
        command += ["--default-artifact-root", artifacts]
    names = {host, "localhost", "127.0.0.1"} | ({socket.gethostname()} if host in ("0.0.0.0", "::") else set())
    return [*command, "--allowed-hosts", ",".join(f"{name}{end}" for name in sorted(names) for end in ("", ":*"))]


def open_ui(path: Path, host: str, port: int, say: Callable[[str], None]) -> None:
    """Says the link of the search's view, and runs a server for it until it is interrupted, where one is needed.

    InputError when the search is not in MLflow, the port is taken, or the server does not start.
    """
    directory, settings = find_search(path)
    uri = tracking_uri(settings.tracking.uri)
    if uri is None:
        raise InputError("this search keeps out of MLflow (tracking.uri is null)")
    written, search_id = read_state(directory), str(read_snapshot(directory).facts["search_id"])
    if not written.experiment_id:
        raise InputError(f"the search in {directory} is not in MLflow yet; first: stepfront sync {path}")
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    link = ui_link(server_of(uri, shown, port), written.experiment_id, search_id)
    if server_of(uri) == uri.rstrip("/"):
        say(link)
        return
    _check_port(host, port)
    set_environment()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        # A session of its own: Ctrl-C reaches the server through us alone, once.
        server = subprocess.Popen(
            server_command(uri, host, port), stdout=log, stderr=log, env=server_environment(uri), start_new_session=True
        )
        # Whoever ends us ends the server, too.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        try:
            say("starting the MLflow server; Ctrl-C ends it")
            _wait_until_up(server, f"http://{shown}:{port}/health")
            say(link)
            server.wait()
            raise InputError(f"the MLflow server ended: {_last_line(log)}")
        except _NotUpError:
            raise InputError(f"the MLflow server did not start: {_last_line(log)}") from None
        except KeyboardInterrupt:
            say("the MLflow server has ended")
        finally:
            _end(server)


def server_environment(uri: str = "") -> dict[str, str]:
    """Without background jobs, which a view of runs does not need: they would be ten more processes."""
    store = {"MLFLOW_BACKEND_STORE_URI": resolved(uri)} if "${" in uri else {}
    return os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | store


class _NotUpError(Exception):
    pass


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
    return str(lines[-1]) if lines else "it said nothing"
