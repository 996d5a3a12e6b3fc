"""A search as a Ray job: settings in; a job on a cluster, its state, its log and its end out, over the jobs API's HTTP.

What is sent is a folder made for the purpose: this program's own source, one settings file and the versions that it
was written against; a trained supernet where one is named.  Never the folder that the command is called from, so that
neither data nor runs go anywhere by accident.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import re
import shlex
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from search.addresses import hidden
from search.arrival import CONFIG_FILE, REQUIREMENTS_FILE, SUPERNET_FOLDER, supernet_files
from search.config import RunSettings, save_settings
from search.facts import SEARCH_ID
from trainers.config import validate
from trainers.errors import InputError
from trainers.files import write_text
from trainers.supernet import settings_json

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

STEPS = ("train", "search", "confirm")
"""What a job may do, in this order."""

PACKAGES = ("search", "trainers", "dashboards")
CONNECT_SECONDS = 10.0
TOKEN_FILE = "~/.ray/auth_token"

_IN_ORDER = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "60"}
"""`stepfront stop` is the Ctrl-C of a job: the search ends in order."""


_CHATTER = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)


@dataclass(frozen=True)
class Submitted:
    """A job that the cluster has taken: its id, and what was sent, file by folder, with its size in bytes."""

    job_id: str
    sent: tuple[str, ...]
    size: int


def submit(
    settings: RunSettings,
    address: str,
    steps: Sequence[str] = ("search",),
    supernet: Path | None = None,
    install: bool = False,
) -> Submitted:
    """Hands a job to the cluster whose dashboard is at `address`.

    `install` asks Ray to install the pinned requirements on each node first.  InputError when a path of the settings
    would not outlive the job, when no dashboard answers, or when it refuses the token.
    """
    wanted = [step for step in STEPS if step in steps]
    if not wanted or set(steps) - set(STEPS):
        raise InputError(f"a job can't do {','.join(steps) or 'nothing'}; possible, in this order: {','.join(STEPS)}")
    settings = on_cluster(settings)
    search_id = uuid.uuid4().hex[:12]
    with tempfile.TemporaryDirectory(prefix="stepfront-job-") as folder:
        sent = pack(settings, Path(folder), supernet)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        environment: dict[str, Any] = {"working_dir": folder, "env_vars": _IN_ORDER | {SEARCH_ID: search_id}}
        if install:
            environment["pip"] = pinned_requirements()
        with _plainly(address), _connected(address) as client:
            job_id = client.submit_job(
                entrypoint=entrypoint(settings, wanted),
                submission_id=f"{settings.name}-{search_id}",
                runtime_env=environment,
                metadata={"stepfront": settings.name, "directory": str(settings.run_directory)},
            )
    return Submitted(job_id, sent, size)


def on_cluster(settings: RunSettings) -> RunSettings:
    """The settings as the head runs them: over its own cluster, with nothing kept in the job's temporary folder."""
    paths = {"directory": settings.directory, "supernet": settings.supernet, "data.path": settings.data.path}
    paths |= {"features.path": settings.features.path, "features.reference": settings.features.reference}
    for key, path in paths.items():
        if path is not None and "://" not in path and not path.startswith("/"):
            raise InputError(
                f"{key} {path!r} would lie in the job's temporary folder; give a path of the cluster's head, such as "
                f"--set {key}=/shared/stepfront"
            )
    changes: dict[str, Any] = {
        "workers": settings_json(settings.workers) | {"address": settings.workers.address or "auto"}
    }
    uri = settings.tracking.uri
    if uri is not None and re.match(r"sqlite:///(?!/)", uri):
        file = f"sqlite:///{settings.directory}/mlflow.db"
        changes["tracking"] = settings_json(settings.tracking) | {"uri": file}
    return validate(RunSettings, settings_json(settings) | changes)


def pack(settings: RunSettings, folder: Path, supernet: Path | None = None) -> tuple[str, ...]:
    """Puts what a job needs into `folder`; what that is, in a few words each."""
    root = Path(__file__).resolve().parent.parent
    for package in PACKAGES:
        shutil.copytree(root / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    save_settings(settings, folder / CONFIG_FILE)
    write_text(folder / REQUIREMENTS_FILE, "".join(f"{line}\n" for line in pinned_requirements()))
    sent = [*(f"{package}/" for package in PACKAGES), CONFIG_FILE, REQUIREMENTS_FILE]
    if supernet is not None:
        (folder / SUPERNET_FOLDER).mkdir()
        for path in supernet_files(supernet):
            shutil.copyfile(path, folder / SUPERNET_FOLDER / path.name)
        sent.append(f"{SUPERNET_FOLDER}/ from {supernet}")
    return tuple(sent)


def pinned_requirements() -> list[str]:
    """What this program needs, at the versions that it runs with here; Ray is the cluster's own."""
    try:
        named = importlib.metadata.requires("stepfront") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    pins = {}
    for line in named:
        name = re.match(r"[A-Za-z0-9._-]+", line)
        if name is None or name[0] == "ray" or ("extra ==" in line and "postgres" not in line):
            continue
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            pins[name[0]] = importlib.metadata.version(name[0]).partition("+")[0]  # +cpu: a GPU node has another
    return [f"{name}=={version}" for name, version in sorted(pins.items())]


def entrypoint(settings: RunSettings, steps: Sequence[str]) -> str:
    """The job's command line."""
    where = {"train": CONFIG_FILE, "search": CONFIG_FILE, "confirm": shlex.quote(str(settings.run_directory))}
    return " && ".join(["python -m search.arrival", *(f"python -m search.cli {step} {where[step]}" for step in steps)])


def list_jobs(address: str) -> list[JobDetails]:
    """The cluster's stepfront jobs, oldest first."""
    with _plainly(address), _connected(address) as client:
        jobs = [job for job in client.list_jobs() if "stepfront" in (job.metadata or {})]
    return sorted(jobs, key=lambda job: job.start_time or 0)


def job_info(address: str, job_id: str) -> JobDetails:
    """One job.  InputError when the cluster knows none of this id."""
    with _plainly(address, job_id), _connected(address) as client:
        return client.get_job_info(job_id)


def job_log(address: str, job_id: str) -> str:
    """All that a job has said so far."""
    with _plainly(address, job_id), _connected(address) as client:
        return str(client.get_job_logs(job_id))


def follow_log(address: str, job_id: str, say: Any) -> None:
    """Hands on what a job says, piece by piece, until it ends."""
    import asyncio

    async def follow(client: JobSubmissionClient) -> None:
        async for piece in client.tail_job_logs(job_id):
            say(piece)

    with _plainly(address, job_id), _connected(address) as client:
        client.get_job_info(job_id)  # the log of an unknown job would be an empty one
        asyncio.run(follow(client))


def stop_job(address: str, job_id: str) -> bool:
    """Ends a job in order; whether it was still running."""
    with _plainly(address, job_id), _connected(address) as client:
        return bool(client.stop_job(job_id))


def find_token() -> tuple[str, str]:
    """Ray's token and where it was found, in the order in which Ray itself looks; ("", "") where there is none."""
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token, "RAY_AUTH_TOKEN"
    given = os.environ.get("RAY_AUTH_TOKEN_PATH", "").strip()
    path = Path(given or TOKEN_FILE).expanduser()
    try:
        return path.read_text(encoding="utf-8").strip(), str(path)
    except FileNotFoundError:
        if given:
            raise InputError(f"RAY_AUTH_TOKEN_PATH names {path}, and there is no such file") from None
        return "", ""
    except OSError as error:
        raise InputError(f"Ray's token in {path} can't be read: {error.strerror}") from None


@contextlib.contextmanager
def _connected(address: str) -> Iterator[JobSubmissionClient]:
    address = address.rstrip("/") if "://" in address else f"http://{address.rstrip('/')}"
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{hidden(address)} is no address of a Ray dashboard; one looks like http://HEAD:8265")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    # Ray's client waits for minutes for a machine that does not answer.
    socket.create_connection((parts.hostname, port), timeout=CONNECT_SECONDS).close()
    from ray.job_submission import JobSubmissionClient

    for name in _CHATTER:
        logging.getLogger(name).setLevel(logging.ERROR)
    token, _ = find_token()
    yield JobSubmissionClient(address, headers={"Authorization": f"Bearer {token}"} if token else None)


@contextlib.contextmanager
def _plainly(address: str, job_id: str = "") -> Iterator[None]:
    """What may go wrong between here and the dashboard, in one line each."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # of sockets, requests, aiohttp and Ray; which ones is their own affair
        raise InputError(_reason(error, hidden(address), job_id)) from error


def _reason(error: Exception, address: str, job_id: str) -> str:
    said, kind = hidden(error), type(error).__name__
    if kind == "AuthenticationError" or "status code 401" in said or "status code 403" in said:
        _, place = find_token()
        if place:
            return f"the cluster at {address} refuses the token of {place}; `ray get-auth-token` on its head prints it"
        return (
            f"the cluster at {address} asks for its token: set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, or put it into "
            f"{TOKEN_FILE}; `ray get-auth-token` on its head prints it"
        )
    if job_id and ("does not exist" in said or "status code 404" in said):
        return f"the cluster at {address} knows no job {job_id}; `stepfront status --address {address}` lists its jobs"
    line = next(iter(said.strip().splitlines()), kind)
    if isinstance(error, OSError) and "status code" not in said:
        return f"no Ray dashboard answers at {address} ({line}); through ssh: ssh -L 8265:127.0.0.1:8265 HEAD"
    if "404" in said or "JSON" in kind:
        return f"what answers at {address} is no Ray dashboard"
    return f"the cluster at {address} refuses: {line}"
