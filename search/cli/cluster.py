"""Define the verbs for jobs on a cluster, from a machine outside it: submit, status, logs and stop."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from stepfront.errors import InputError
from stepfront.search.cli.terminal import AsJson, Config, Output

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

    from stepfront.search.jobs.submit import Submitted

Address = Annotated[
    str,
    typer.Option(
        "--address",
        metavar="URL",
        envvar="RAY_API_SERVER_ADDRESS",
        help="address of the cluster's dashboard; its token is read as Ray reads it: RAY_AUTH_TOKEN, the file "
        "RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token",
    ),
]
ENDED_EARLY = ("FAILED", "STOPPED")
LOCAL_DASHBOARD = "http://127.0.0.1:8265"
Job = Annotated[str, typer.Argument(metavar="JOB", help="job id that `stepfront submit` or `status` printed")]


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    example = "Example: stepfront {} --address http://127.0.0.1:8265"
    app.command("submit", epilog=example.format("submit configs/digits.yaml --set directory=/shared/runs"))(submit)
    app.command("status", epilog=example.format("status"))(status)
    app.command("logs", epilog=example.format("logs digits-0123456789ab --follow"))(logs)
    app.command("stop", epilog=example.format("stop digits-0123456789ab"))(stop)


def submit(
    config: Config,
    address: Address = LOCAL_DASHBOARD,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="override a setting; paths are paths of the cluster"),
    ] = None,
    do: Annotated[
        str, typer.Option(metavar="STEPS", help="steps of the job, comma-separated: train, search, confirm")
    ] = "search",
    supernet: Annotated[
        str | None, typer.Option(metavar="RUN", help="run whose supernet is sent along, to be searched there")
    ] = None,
    from_: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="SEARCH",
            help="earlier search to start from: a path of the head, a URI, or auto; may be repeated",
        ),
    ] = None,
    install: Annotated[
        bool, typer.Option("--install", help="install this machine's package versions on each node first")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", help="wait for the job to end, and print its log")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a search on a cluster, as a Ray job.

    What is sent: stepfront's source, the resolved settings and the versions of this machine's packages, about half a
    megabyte.  Data, runs and the current folder stay here; data.path and directory are places on the cluster.
    """
    from stepfront.search.config import load_settings
    from stepfront.search.jobs.submit import submit_job
    from stepfront.search.records.run_directory import find_supernet
    from stepfront.search.storage.run_location import open_for_reading

    output = Output(as_json)
    settings = load_settings(config, set_ or [])
    found = find_supernet(open_for_reading(supernet).local) if supernet is not None else None
    steps = [word.strip() for word in do.split(",") if word.strip()]
    done = submit_job(settings, address, steps, found, install, from_ or [])
    _show_submitted(output, done, address, settings.run_place)
    if follow:
        _follow(address, done.job_id, sys.stderr if as_json else sys.stdout)
        return
    for verb in ("status", "logs", "stop"):
        output.message(f"      stepfront {verb} {done.job_id} --address {address}")


def _show_submitted(output: Output, done: Submitted, address: str, directory: str) -> None:
    """Print what was sent and the job's id."""
    output.message(f"sent  {', '.join(done.sent)} ({done.size / 1e6:.1f} MB)")
    output.message(f"job   {done.job_id}; its search: {directory} on the cluster")
    if output.as_json:
        sent = {"sent": list(done.sent), "bytes": done.size}
        output.json({"job": done.job_id, "address": address, "directory": directory} | sent)


def status(
    job: Annotated[
        str | None, typer.Argument(metavar="[JOB]", help="job id (default: all jobs of the cluster)")
    ] = None,
    address: Address = LOCAL_DASHBOARD,
    as_json: AsJson = False,
) -> None:
    """Print the state of a cluster's jobs."""
    from stepfront.search.cli.tables.jobs import job_table
    from stepfront.search.jobs import client as jobs

    output = Output(as_json)
    if job is not None:
        found, last = jobs.job_info(address, job), _last_line(jobs.job_log(address, job))
        if as_json:
            output.json(_job_values(found) | {"last_line": last})
            return
        output.message(job_table([_job_values(found)]))
        for text in filter(None, [_reason(found), last]):
            output.message(f"  {text}", indent=2)
        if str(found.status) in ENDED_EARLY:
            output.message("  it ended early; the same `stepfront submit` continues it from what was kept", indent=2)
        return
    every = [_job_values(one) for one in jobs.list_jobs(address)]
    if as_json:
        output.json(every)
        return
    output.message(job_table(every) if every else f"no stepfront job at {address}")


def logs(
    job: Job,
    address: Address = LOCAL_DASHBOARD,
    follow: Annotated[bool, typer.Option("--follow", help="continue until the job ends")] = False,
) -> None:
    """Print the log of a job.

    With --follow the exit code is 0 where the job succeeded.
    """
    from stepfront.search.jobs.client import job_log

    if follow:
        _follow(address, job, sys.stdout)
    else:
        typer.echo(job_log(address, job), nl=False)


def stop(job: Job, address: Address = LOCAL_DASHBOARD) -> None:
    """Stop a job gracefully, as Ctrl-C would.

    Results are kept, and the same `submit` continues from there.
    """
    from stepfront.search.jobs.client import stop_job

    running = stop_job(address, job)
    typer.echo(f"{job} is being stopped" if running else f"{job} was not running any more")


def _follow(address: str, job: str, stream: TextIO) -> None:
    from stepfront.search.jobs import client as jobs

    def write(piece: str) -> None:
        stream.write(piece)
        stream.flush()

    jobs.follow_log(address, job, write)
    found = jobs.job_info(address, job)
    if found.status != "SUCCEEDED":
        raise InputError(f"{job} {found.status!s}: {_reason(found)}")


def _minutes(job: JobDetails) -> float | None:
    """Return how long a job has run; None before it has begun."""
    began = (job.start_time or 0) / 1000
    until = job.end_time / 1000 if job.end_time else time.time()
    return (until - began) / 60 if began else None


def _directory(job: JobDetails) -> str:
    return str((job.metadata or {}).get("directory", ""))


def _job_values(job: JobDetails) -> dict[str, Any]:
    return {
        "job": job.submission_id,
        "status": str(job.status),
        "minutes": _minutes(job),
        "directory": _directory(job),
        "message": _reason(job),
    }


def _reason(job: JobDetails) -> str:
    """Return Ray's message on a job's state, without the log that it appends."""
    return " ".join((job.message or "").partition(", last available logs")[0].split())[:300]


def _last_line(log: str) -> str:
    return " ".join(next((line for line in reversed(log.splitlines()) if line.strip()), "").split())
