"""The jobs of a Ray cluster, over its dashboard's HTTP: an address in; what runs, what it says, its end out."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stepfront.addresses import redacted
from stepfront.errors import InputError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

CONNECT_SECONDS = 10.0
TOKEN_FILE = "~/.ray/auth_token"
LABEL = "stepfront"
"""The entry of a job's metadata that says it is one of ours, and its search's name."""

_CHATTER = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)


def list_jobs(address: str) -> list[JobDetails]:
    """The cluster's stepfront jobs, oldest first."""
    with jobs_client(address) as client:
        jobs = [job for job in client.list_jobs() if LABEL in (job.metadata or {})]
    return sorted(jobs, key=lambda job: job.start_time or 0)


def job_info(address: str, job_id: str) -> JobDetails:
    """One job.  InputError when the cluster knows none of this id."""
    with jobs_client(address, job_id) as client:
        return client.get_job_info(job_id)


def job_log(address: str, job_id: str) -> str:
    """All that a job has said so far."""
    with jobs_client(address, job_id) as client:
        return str(client.get_job_logs(job_id))


def follow_log(address: str, job_id: str, say: Callable[[str], None]) -> None:
    """Hands on what a job says, piece by piece, until it ends."""
    import asyncio

    async def follow(client: JobSubmissionClient) -> None:
        async for piece in client.tail_job_logs(job_id):
            say(piece)

    with jobs_client(address, job_id) as client:
        client.get_job_info(job_id)  # the log of an unknown job would be an empty one
        asyncio.run(follow(client))


def stop_job(address: str, job_id: str) -> bool:
    """Ends a job in order; whether it was still running."""
    with jobs_client(address, job_id) as client:
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
def jobs_client(address: str, job_id: str = "") -> Iterator[JobSubmissionClient]:
    """Ray's client.  What goes wrong within, in its sockets, requests or Ray itself, is an InputError of one line."""
    try:
        yield _connect(address)
    except InputError:
        raise
    except Exception as error:
        raise InputError(_reason(error, redacted(address), job_id)) from error


def _connect(address: str) -> JobSubmissionClient:
    address = address.rstrip("/") if "://" in address else f"http://{address.rstrip('/')}"
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{redacted(address)} is no address of a Ray dashboard; one looks like http://HEAD:8265")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    # Ray's client waits for minutes for a machine that does not answer.
    socket.create_connection((parts.hostname, port), timeout=CONNECT_SECONDS).close()
    from ray.job_submission import JobSubmissionClient

    for name in _CHATTER:
        logging.getLogger(name).setLevel(logging.ERROR)
    token, _ = find_token()
    return JobSubmissionClient(address, headers={"Authorization": f"Bearer {token}"} if token else None)


def _reason(error: Exception, address: str, job_id: str) -> str:
    said, kind = redacted(error), type(error).__name__
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
    if "returned 404" in said or "JSON" in kind:
        return f"what answers at {address} is no Ray dashboard"
    if isinstance(error, OSError) and "status code" not in said:
        return f"no Ray dashboard answers at {address} ({line}); through ssh: ssh -L 8265:127.0.0.1:8265 HEAD"
    return f"the cluster at {address} refuses: {line}"
