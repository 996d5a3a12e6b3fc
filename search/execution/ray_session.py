"""Connect to a Ray cluster, or start one on this machine, with the environment that stepfront needs."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import site
import socket
import sysconfig
import time
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import ray

from stepfront.environment import SOURCE_ROOT
from stepfront.errors import InputError, first_line
from stepfront.search.config import WorkerSettings
from stepfront.search.execution.interrupt import sigterm_handler_kept
from stepfront.search.execution.ray_private import job_config, keep_to_loopback

ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # five files per trial that nobody reads
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",  # Tune's state is never restored
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # stepfront handles Ctrl-C itself, to end the search gracefully
    "TUNE_WARN_THRESHOLD_S": "1000",
    "TUNE_MAX_PENDING_TRIALS_PG": "4096",  # the searcher never has more trials in flight than there are slots
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}
"""Environment switches of Ray and Ray Tune, set when a session begins; values that the user has set are kept."""


CONNECT_SECONDS = 10.0
"""Seconds for which the head at `workers.address` may take to answer.  Ray itself would try for minutes."""


@contextlib.contextmanager
def ray_session(workers: WorkerSettings) -> Iterator[None]:
    """Provide a Ray cluster: a connected one, the one at `workers.address`, or a new one on loopback.

    A cluster that was connected before stays connected afterwards.
    Raises InputError when there is no cluster at the address, or none can be started.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if ray.is_initialized():
        yield
        return
    try:
        with warnings.catch_warnings(), sigterm_handler_kept():
            warnings.simplefilter("ignore")
            _connect(workers)
    except Exception as error:
        where = f"{workers.address} (workers.address)" if workers.address else "this machine"
        raise InputError(f"no Ray cluster at {where}: {first_line(error)}") from error
    if (kept := _KEPT.get()) is not None:
        kept.callback(ray.shutdown)
        yield
        return
    try:
        yield
    finally:
        ray.shutdown()


_KEPT: ContextVar[contextlib.ExitStack | None] = ContextVar("kept", default=None)


@contextlib.contextmanager
def one_session() -> Iterator[None]:
    """Let the sessions within the block be one: a cluster that the first of them begins stays until the end."""
    with contextlib.ExitStack() as kept:
        before = _KEPT.set(kept)
        try:
            yield
        finally:
            _KEPT.reset(before)


def _connect(workers: WorkerSettings) -> None:
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if workers.address:
        _check_answer(workers.address)
        ray.init(address=workers.address, **quiet)
        return
    keep_to_loopback()
    # Without an address, Ray would join any cluster that it finds on this machine.
    token_without_home()
    # Not as a runtime environment of the job: Ray starts workers before they are asked for, without any, and a job that
    # has one leaves them unused and waits for others.
    with _environment(import_path(SOURCE_ROOT)):
        ray.init(
            address="local",
            include_dashboard=False,
            job_config=job_config(),
            **({} if (folder := short_folder()) is None else {"_temp_dir": folder}),
            **quiet,
        )


def _check_answer(address: str) -> None:
    """Raise OSError where nothing listens at HOST:PORT; all other addresses are Ray's to find.

    Of a loopback address Ray makes the machine's own, where a cluster of loopback alone does not listen.
    """
    scheme, _, place = address.rpartition("://")
    host, _, port = place.rpartition(":")
    if scheme not in ("", "ray") or not port.isdigit() or not (host := host.strip("[]")):
        return
    until = time.monotonic() + CONNECT_SECONDS
    while not _listens(host, int(port)):  # a head that is starting refuses at first
        if time.monotonic() > until:
            raise ConnectionError("nothing listens there; start Ray there, or correct the address")
        time.sleep(0.5)
    on_loopback = not scheme and host in ("127.0.0.1", "::1", "localhost")
    if on_loopback and not _listens(ray.util.get_node_ip_address(), int(port)):
        keep_to_loopback()


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that are started within the block, and for their children."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


LONGEST_SOCKET = 107
"""Bytes that the path of a Unix socket may have."""

_SOCKET = "ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"


def short_folder(fallback: str = "/tmp/ray") -> str | None:
    """Return a folder for Ray's files where TMPDIR is too long for its sockets; None where Ray's own choice will do."""
    given = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    if len(os.fsencode(os.path.join(given, _SOCKET))) <= LONGEST_SOCKET:
        return None
    logging.getLogger("stepfront").warning(
        "Ray's files are in %s: the path of TMPDIR is too long for its sockets", fallback
    )
    return fallback


def token_without_home() -> None:
    """Give a cluster of this machine a token of its own where Ray can't write one into the home folder."""
    home = Path(os.path.expanduser("~"))
    known = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if not known and not (home.is_dir() and os.access(home, os.W_OK)) and not (home / ".ray" / "auth_token").exists():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def import_path(root: Path) -> dict[str, str]:
    """Return the environment variables with which workers import the package from `root`, as the driver does.

    Workers run the driver's Python, which searches its own site-packages by itself.  In PYTHONPATH that folder would
    come before the standard library.
    """
    installed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), site.getusersitepackages()}
    if root in {Path(folder).resolve() for folder in installed}:
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))}
