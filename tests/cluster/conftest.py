"""A team's services on this machine, all on loopback: PostgreSQL, an MLflow server, and a Ray cluster with a token."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
DATABASE_PASSWORD = "STEPFRONT_TEST_DATABASE_PASSWORD"
LOOPBACK = "127.0.0.1"


@pytest.fixture(autouse=True, scope="session")
def _linux() -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("Ray has clusters of several nodes on Linux alone")


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, is_so: Callable[[], Any], seconds: float) -> Any:
    """Ask `is_so` again and again, and return its first true answer."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if answer := is_so():
            return answer
        time.sleep(0.2)
    raise AssertionError(f"{what}: not within {seconds:.0f} s")


@dataclass(frozen=True)
class Database:
    """A PostgreSQL server; `url` names its password, which the environment holds."""

    url: str
    password: str


@pytest.fixture(scope="session")
def database() -> Iterator[Database]:
    # Debian keeps the server's programs out of the search path.
    kept = os.pathsep.join([os.environ["PATH"], *map(str, Path("/usr/lib/postgresql").glob("*/bin"))])
    programs = [found for name in ("initdb", "postgres") if (found := shutil.which(name, path=kept))]
    if len(programs) < 2:
        pytest.skip("no PostgreSQL server (initdb, postgres) on this machine")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("no psycopg; pip install 'psycopg[binary]'")
    # PostgreSQL refuses to run as root.
    other = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
    password, port = secrets.token_urlsafe(12) + "/@:", free_port()
    folder = Path(tempfile.mkdtemp(prefix="stepfront-postgres-"))
    try:
        secret = folder / "password"
        secret.write_text(password)
        if other:
            for path in (folder, secret):
                shutil.chown(path, **other)
        init = [programs[0], "-D", str(folder / "data"), "-U", "stepfront", "-A", "scram-sha-256"]
        subprocess.run([*init, "--pwfile", str(secret)], check=True, capture_output=True, cwd=folder, **other)
        options = ["-h", LOOPBACK, "-p", str(port), "-k", "", "-c", "fsync=off"]
        with open(folder / "log", "w") as log:
            server = subprocess.Popen(
                [programs[1], "-D", str(folder / "data"), *options], stdout=log, stderr=log, cwd=folder, **other
            )
        os.environ[DATABASE_PASSWORD] = password
        try:
            where = {"host": LOOPBACK, "port": port, "user": "stepfront", "password": password, "dbname": "postgres"}
            wait_for("PostgreSQL", lambda: _reaches(where), 60)
            for name in ("search", "mlflow"):
                _sql(where, f"create database {name}")
            yield Database(f"postgresql://stepfront:${{{DATABASE_PASSWORD}}}@{LOOPBACK}:{port}/search", password)
        finally:
            os.environ.pop(DATABASE_PASSWORD, None)
            _end(server)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sql(where: dict[str, Any], statement: str) -> None:
    import psycopg

    # A database is not made within a transaction.
    with psycopg.connect(**where, autocommit=True) as connection:
        connection.execute(statement)


def _reaches(where: dict[str, Any]) -> bool:
    import psycopg

    try:
        _sql(where, "select 1")
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture(scope="session")
def mlflow_server(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run an MLflow server over HTTP, on the database, as deploy/compose does."""
    from stepfront.addresses import resolved
    from stepfront.search.tracking.server import server_environment

    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"]
    environment = server_environment() | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    environment["MLFLOW_BACKEND_STORE_URI"] = resolved(
        database.url.replace("/search", "/mlflow").replace("postgresql:", "postgresql+psycopg:")
    )
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(
            [*command, "--artifacts-destination", str(folder / "artifacts")], stdout=log, stderr=log, env=environment
        )
    address = f"http://{LOOPBACK}:{port}"
    try:
        wait_for(f"MLflow ({folder / 'log'})", lambda: _answers(f"{address}/health"), 180)
        yield address
    finally:
        _end(server)


def _answers(address: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(address, timeout=5):
            return True
    except OSError:
        return False


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


@dataclass(frozen=True)
class RayCluster:
    """Several raylets on this machine; `nodes` is Ray's own handle on them."""

    address: str
    token_file: Path
    nodes: Any

    def add(self, name: str, cpus: int) -> Any:
        """Add a node and return Ray's handle on it."""
        # Nodes of one machine share a session's folder, and each would unpack the job over the others' copy.
        own = {"runtime_env_dir_name": f"runtime_{name}", "node_ip_address": LOOPBACK}
        return self.nodes.add_node(num_cpus=cpus, resources={name: 1}, **own)

    def stepfront(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command as a user types it, outside the cluster; it finds its token as Ray does."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        clean |= {"PYTHONPATH": str(ROOT), "RAY_AUTH_TOKEN_PATH": str(self.token_file)} | environment
        return subprocess.run(
            [sys.executable, "-m", "stepfront", *words, "--address", self.address],
            capture_output=True,
            text=True,
            env=clean,
            timeout=300,
        )


@pytest.fixture(scope="session")
def cluster(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """Start a head without places for trials, and two nodes: one of two CPUs, one of one CPU."""
    folder, port = tmp_path_factory.mktemp("ray"), free_port()
    token = folder / "token"
    token.write_text(secrets.token_hex(24))
    before = dict(os.environ)
    # What the nodes inherit.  The code comes with the job: theirs must not be the one that lies here.
    os.environ.pop("PYTHONPATH", None)
    os.environ.pop("RAY_AUTH_TOKEN", None)
    os.environ |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # keeps Ray to loopback; see search/executor.py
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "OMP_NUM_THREADS": "1",
    }
    short = tempfile.mkdtemp(prefix="sf-ray-")  # the path of a socket has 107 characters at most
    try:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": True, "dashboard_host": LOOPBACK, "dashboard_port": port}
        head["dashboard_agent_listen_port"] = free_port()  # the usual one may be another Ray's
        nodes = Cluster(initialize_head=True, head_node_args=head | {"node_ip_address": LOOPBACK, "temp_dir": short})
        # Other Rays of this machine must not be taken for the job's own; `ray start` writes this file by itself.
        Path(short, "ray_current_cluster").write_text(nodes.gcs_address)
        try:
            ready = RayCluster(f"http://{LOOPBACK}:{port}", token, nodes)
            ready.add("big", cpus=2)
            ready.add("small", cpus=1)
            wait_for("Ray's jobs API", lambda: ready.stepfront("status").returncode == 0, 60)
            yield ready
        finally:
            nodes.shutdown()
    finally:
        os.environ.clear()
        os.environ |= before
        shutil.rmtree(short, ignore_errors=True)
