"""Ask a Ray cluster about its jobs, through the HTTP interface of its dashboard."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stepfront.addresses import redacted, shown
from stepfront.errors import InputError, first_line

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

CONNECT_SECONDS = 10.0
TOKEN_FILE = "~/.ray/auth_token"
LABEL = "stepfront"
"""Entry of a job's metadata that holds the name of its search; jobs of other programs lack it."""

_NOISY_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)


def list_jobs(address: str) -> list[JobDetails]:
    """Return the cluster's stepfront jobs, oldest first."""
    with jobs_client(address) as client:
        jobs = [job for job in client.list_jobs() if LABEL in (job.metadata or {})]
    return sorted(jobs, key=lambda job: job.start_time or 0)


def job_info(address: str, job_id: str) -> JobDetails:
    """Return one job.  Raises InputError when the cluster has no job of this id."""
    with jobs_client(address, job_id) as client:
        return client.get_job_info(job_id)


def job_log(address: str, job_id: str) -> str:
    """Return everything that a job has printed so far."""
    with jobs_client(address, job_id) as client:
        return str(client.get_job_logs(job_id))


def follow_log(address: str, job_id: str, show: Callable[[str], None]) -> None:
    """Show what a job prints, piece by piece, until it ends."""
    import asyncio

    async def follow(client: JobSubmissionClient) -> None:
        async for piece in client.tail_job_logs(job_id):
            show(piece)

    with jobs_client(address, job_id) as client:
        client.get_job_info(job_id)  # the log of an unknown job would be empty
        asyncio.run(follow(client))


def stop_job(address: str, job_id: str) -> bool:
    """Ask a job to end gracefully, and return whether it was still running."""
    with jobs_client(address, job_id) as client:
        return bool(client.stop_job(job_id))


def find_token() -> tuple[str, str]:
    """Return Ray's token and where it was found, in Ray's own order; ("", "") when there is none.

    Raises InputError when the file that should hold it is missing or can't be read.
    """
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token, "RAY_AUTH_TOKEN"
    given = os.environ.get("RAY_AUTH_TOKEN_PATH", "").strip()
    path = Path(given or TOKEN_FILE).expanduser()
    try:
        return path.read_text(encoding="utf-8").strip(), str(path)
    except FileNotFoundError:
        if given:
            raise InputError(
                f"RAY_AUTH_TOKEN_PATH names {path}, and there is no such file; correct or unset it"
            ) from None
        return "", ""
    except OSError as error:
        raise InputError(f"Ray's token in {path} can't be read: {error.strerror}") from None


@contextlib.contextmanager
def jobs_client(address: str, job_id: str = "") -> Iterator[JobSubmissionClient]:
    """Give Ray's client; any failure while it is used becomes an InputError of one line."""
    try:
        yield _connect(address)
    except InputError:
        raise
    except Exception as error:
        raise InputError(_reason(error, shown(address), job_id)) from error


def _connect(address: str) -> JobSubmissionClient:
    address = address.rstrip("/") if "://" in address else f"http://{address.rstrip('/')}"
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{shown(address)} is not the address of a Ray dashboard; give one such as http://HEAD:8265")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    # Ray's own client waits for minutes when a machine does not answer.
    socket.create_connection((parts.hostname, port), timeout=CONNECT_SECONDS).close()
    from ray.job_submission import JobSubmissionClient

    for name in _NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    token, _ = find_token()
    return JobSubmissionClient(address, headers={"Authorization": f"Bearer {token}"} if token else None)


def _reason(error: Exception, address: str, job_id: str) -> str:
    text, kind = redacted(error), type(error).__name__
    if kind == "AuthenticationError" or "status code 401" in text or "status code 403" in text:
        _, place = find_token()
        if place:
            return f"the cluster at {address} refuses the token of {place}; `ray get-auth-token` on its head prints it"
        return (
            f"the cluster at {address} asks for its token: set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, or put it into "
            f"{TOKEN_FILE}; `ray get-auth-token` on its head prints it"
        )
    if job_id and ("does not exist" in text or "status code 404" in text):
        return f"the cluster at {address} has no job {job_id}; `stepfront status --address {address}` lists its jobs"
    line = first_line(error, text)
    if "returned 404" in text or "JSON" in kind:
        return f"the server at {address} is not a Ray dashboard; give the address of one, such as http://HEAD:8265"
    if isinstance(error, OSError) and "status code" not in text:
        return f"no Ray dashboard answers at {address} ({line}); through ssh: ssh -L 8265:127.0.0.1:8265 HEAD"
    return f"the cluster at {address} refuses: {line}"
