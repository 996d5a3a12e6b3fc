"""The environment of a Ray session: what workers inherit, and where they import the package from."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import ray

from stepfront.environment import SOURCE_ROOT
from stepfront.errors import InputError
from stepfront.search.config import WorkerSettings
from stepfront.search.execution.ray_private import DriverPath
from stepfront.search.execution.ray_session import (
    ENVIRONMENT,
    _check_answer,
    import_path,
    one_session,
    ray_session,
    short_folder,
    token_without_home,
)


def test_workers_import_a_checkout_from_where_the_driver_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert import_path(Path("/checkout/src")) == {"PYTHONPATH": "/checkout/src"}
    monkeypatch.setenv("PYTHONPATH", "/theirs")
    assert import_path(Path("/checkout/src")) == {"PYTHONPATH": os.pathsep.join(["/checkout/src", "/theirs"])}


def test_an_installed_package_is_found_without_pythonpath() -> None:
    # In PYTHONPATH, site-packages would come before the standard library.
    assert import_path(Path(sysconfig.get_path("purelib")).resolve()) == {}


def test_workers_that_ray_starts_ahead_can_be_used_and_import_the_checkout(cluster: None) -> None:
    # Ray starts workers before the first is asked for; a job with a runtime environment can't use them.
    assert not ray.get_runtime_context().runtime_env
    worker = ray.remote(num_cpus=0.1)(lambda: os.environ.get("PYTHONPATH", ""))
    assert ray.get(worker.remote()) == import_path(SOURCE_ROOT).get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))


def test_sessions_within_one_share_the_cluster_that_the_first_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    alive = lambda: done.count("begun") > done.count("ended")  # noqa: E731
    for name, call in (
        ("_connect", lambda workers: done.append("begun")),
        ("ray.is_initialized", alive),
        ("ray.shutdown", lambda: done.append("ended")),
    ):
        monkeypatch.setattr(f"stepfront.search.execution.ray_session.{name}", call)
    with one_session():
        assert done == []  # nothing is begun before it is needed
        for _ in range(2):
            with ray_session(WorkerSettings()):
                assert done == ["begun"]
    assert done == ["begun", "ended"]
    with pytest.raises(KeyboardInterrupt), one_session(), ray_session(WorkerSettings()):
        raise KeyboardInterrupt
    with ray_session(WorkerSettings()):
        assert alive()
    assert done == ["begun", "ended"] * 3


def test_importing_the_executor_changes_no_environment() -> None:
    names = [*ENVIRONMENT, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"]
    code = f"""
import os
import stepfront.search.execution.executor, stepfront.search.execution.ray_session
print([name for name in {names!r} if name in os.environ])
"""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "TUNE_"))}
    clean["PYTHONPATH"] = str(SOURCE_ROOT)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean, check=True)
    assert run.stdout.strip() == "[]"


def test_workers_look_for_modules_where_the_driver_does_and_not_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = tmp_path / "scripts", tmp_path / "here"
    monkeypatch.setattr(sys, "path", [str(mine), *sys.path])
    path = DriverPath()
    path.extend([str(mine), str(theirs)])
    assert path == [str(mine)]


def test_a_long_folder_for_temporary_files_is_too_long_for_sockets(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert short_folder() is None
    assert caplog.text == ""
    monkeypatch.setenv("TMPDIR", "/scratch/" + 60 * "x")
    assert short_folder() == "/tmp/ray"
    assert "too long" in caplog.text


def test_a_home_that_cannot_be_written_is_replaced_by_a_token_of_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    token_without_home()
    assert "RAY_AUTH_TOKEN" not in os.environ
    monkeypatch.setenv("HOME", str(tmp_path / "missing"))
    token_without_home()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    monkeypatch.delenv("RAY_AUTH_TOKEN")


def test_an_address_where_nothing_listens_is_refused_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr("stepfront.search.execution.ray_session.CONNECT_SECONDS", 0.6)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(InputError) as refused, ray_session(WorkerSettings(address=address)):
            pass
        assert str(refused.value).startswith(
            f"no Ray cluster at {address} (workers.address): nothing listens there; start"
        )
        assert "\n" not in str(refused.value)


def test_a_cluster_of_loopback_alone_is_not_looked_for_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[str] = []
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.2")  # in place of the machine's own
    monkeypatch.setattr("stepfront.search.execution.ray_session.keep_to_loopback", lambda: kept.append("kept"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_server(("127.0.0.2", port)):
            _check_answer(f"127.0.0.1:{port}")
            assert kept == []
        _check_answer(f"localhost:{port}")
        assert kept == ["kept"]
    _check_answer("auto")
