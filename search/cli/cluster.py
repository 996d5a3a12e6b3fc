"""The verbs `stepfront submit`, `status`, `logs` and `stop`: searches on a cluster, from a machine outside it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepfront.errors import InputError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

Address = Annotated[
    str,
    typer.Option(
        "--address",
        metavar="URL",
        envvar="RAY_API_SERVER_ADDRESS",
        help="of the cluster's dashboard; its token is read as Ray reads it: RAY_AUTH_TOKEN, the file "
        "RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token",
    ),
]
HERE = "http://127.0.0.1:8265"
Job = Annotated[str, typer.Argument(metavar="JOB", help="an id that `stepfront submit` or `status` said")]


def add_to(app: typer.Typer) -> None:
    """Adds the verbs to the command."""
    example = "Example: stepfront {} --address http://127.0.0.1:8265"
    app.command("submit", epilog=example.format("submit configs/digits.yaml --set directory=/shared/runs"))(submit)
    app.command("status", epilog=example.format("status"))(status)
    app.command("logs", epilog=example.format("logs digits-0123456789ab --follow"))(logs)
    app.command("stop", epilog=example.format("stop digits-0123456789ab"))(stop)


def submit(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="a YAML file, such as configs/digits.yaml")],
    address: Address = HERE,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="override a setting; paths are those of the cluster"),
    ] = None,
    do: Annotated[str, typer.Option(metavar="STEPS", help="comma-separated, of train, search and confirm")] = "search",
    supernet: Annotated[
        str | None, typer.Option(metavar="DIR", help="send the supernet of this run along, to be searched there")
    ] = None,
    install: Annotated[
        bool, typer.Option("--install", help="have each node install the versions of this machine first")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", help="stay, and print what the job says")] = False,
) -> None:
    """Run a search on a cluster, as a Ray job.

    Sent are stepfront's own source, the resolved settings and the versions of this machine's packages: about half a
    megabyte.  Data, runs and the folder that you are in stay; data.path and directory are places on the cluster.
    """
    from stepfront.search.config import load_settings
    from stepfront.search.jobs.submit import submit as run_submit
    from stepfront.search.records.run_directory import find_supernet
    from stepfront.search.storage.run_location import open_for_reading

    settings = load_settings(config, set_ or [])
    found = find_supernet(open_for_reading(supernet).local) if supernet is not None else None
    done = run_submit(settings, address, [word.strip() for word in do.split(",") if word.strip()], found, install)
    typer.echo(f"sent  {', '.join(done.sent)} ({done.size / 1e6:.1f} MB)")
    typer.echo(f"job   {done.job_id}; its search: {settings.run_place} on the cluster")
    if follow:
        _follow(address, done.job_id)
        return
    for verb in ("status", "logs", "stop"):
        typer.echo(f"      stepfront {verb} {done.job_id} --address {address}")


def status(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="default: all of this cluster's")] = None,
    address: Address = HERE,
) -> None:
    """Say how the jobs of a cluster are doing."""
    from stepfront.search.jobs import client as jobs

    if job is not None:
        found = jobs.job_info(address, job)
        typer.echo(_line(found))
        for text in filter(None, [_message(found), _last_line(jobs.job_log(address, job))]):
            typer.echo(f"  {text}")
        return
    every = jobs.list_jobs(address)
    for one in every:
        typer.echo(_line(one))
    if not every:
        typer.echo(f"no job of stepfront at {address}")


def logs(
    job: Job,
    address: Address = HERE,
    follow: Annotated[bool, typer.Option("--follow", help="go on until the job ends")] = False,
) -> None:
    """Print what a job has said.  With --follow, the exit code is that of the job: 0 where it succeeded."""
    from stepfront.search.jobs.client import job_log

    if follow:
        _follow(address, job)
    else:
        typer.echo(job_log(address, job), nl=False)


def stop(job: Job, address: Address = HERE) -> None:
    """End a job in order, as Ctrl-C would: results are kept, and the same `submit` goes on from there."""
    from stepfront.search.jobs.client import stop_job

    ended = stop_job(address, job)
    typer.echo(f"{job} is being stopped" if ended else f"{job} was not running any more")


def _follow(address: str, job: str) -> None:
    from stepfront.search.jobs import client as jobs

    def say(piece: str) -> None:
        sys.stdout.write(piece)
        sys.stdout.flush()

    jobs.follow_log(address, job, say)
    found = jobs.job_info(address, job)
    if found.status != "SUCCEEDED":
        raise InputError(f"{job} {found.status!s}: {_message(found)}")


def _line(job: JobDetails) -> str:
    began = (job.start_time or 0) / 1000
    until = job.end_time / 1000 if job.end_time else time.time()
    minutes = f"{(until - began) / 60:.1f} min" if began else "not begun"
    return f"{job.submission_id}  {job.status!s:<9}  {minutes:>9}  {(job.metadata or {}).get('directory', '')}"


def _message(job: JobDetails) -> str:
    """Ray's word on a job's state, without the log that it carries along."""
    return " ".join((job.message or "").partition(", last available logs")[0].split())[:300]


def _last_line(log: str) -> str:
    return " ".join(next((line for line in reversed(log.splitlines()) if line.strip()), "").split())
