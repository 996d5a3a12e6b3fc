"""Define the verbs that check an installation and repair its searches: doctor and sync."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepfront.errors import InputError
from stepfront.search.cli.steps import publish_step
from stepfront.search.cli.terminal import AsJson, Output, Overrides, Search

if TYPE_CHECKING:
    from stepfront.search.checks.doctor import Finding


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command(epilog="Example: stepfront doctor configs/digits.yaml, or stepfront doctor runs/digits --repair")(
        doctor
    )
    app.command(epilog="Example: stepfront sync runs/digits")(sync)


def doctor(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[CONFIG | RUN]", help="settings file to check the environment for, or a run or its search to check"
        ),
    ] = None,
    set_: Overrides = None,
    repair: Annotated[bool, typer.Option("--repair", help="rebuild a search's tables and report")] = False,
    as_json: AsJson = False,
) -> None:
    """Check the environment, or check and repair a search.

    The environment is Ray, storage, MLflow, device and data.  It is also checked for a run without a search.  The exit
    code is 1 where a check fails.
    """
    from stepfront.search.storage.run_location import open_for_writing

    output = Output(as_json)
    with contextlib.nullcontext() if what is None else open_for_writing(what) as location:
        findings = _check(None if location is None else location.local, set_ or [], repair, output)
    for finding in findings:
        output.message(f"{'ok  ' if finding.usable else 'FAIL'}  {finding.what:<10} {finding.detail}", indent=17)
        for line in finding.lines:
            output.message(f"{'':<17}{line}", indent=17)
    if as_json:
        output.json([{"what": f.what, "usable": f.usable, "detail": f.detail, "lines": f.lines} for f in findings])
    if not all(finding.usable for finding in findings):
        raise typer.Exit(1)


def _check(what: Path | None, overrides: list[str], repair: bool, output: Output) -> list[Finding]:
    from stepfront.search.adaptation.adapt import settings_of_supernet
    from stepfront.search.checks.doctor import check_environment
    from stepfront.search.checks.integrity import check_search, repair_search
    from stepfront.search.config import load_settings
    from stepfront.search.records.run_directory import has_supernet_alone

    if what is not None and not repair and has_supernet_alone(what):
        return check_environment(settings_of_supernet(str(what), overrides))
    if what is not None and what.is_dir():
        if repair:
            publish_step(repair_search(what, output.message), output)
        return check_search(what)
    if what is not None and not what.exists():
        raise InputError(
            f"there is no {what}; give a settings file, such as configs/digits.yaml, or the directory of a search, "
            "such as runs/digits"
        )
    if repair:
        raise InputError(f"--repair needs the directory of a search, such as runs/digits; given: {what or 'nothing'}")
    return check_environment(load_settings(what, overrides) if what else None)


def sync(search: Search) -> None:
    """Write to MLflow what it lacks of a search.

    This is needed where its server was unavailable during the search.  An experiment or run that was deleted in MLflow
    is restored.
    """
    from stepfront.search.driver.publish import log_to_mlflow
    from stepfront.search.records.run_directory import find_search
    from stepfront.search.storage.run_location import open_for_writing
    from stepfront.tables.search_tables import read_snapshot

    with open_for_writing(search) as location:
        directory, settings = find_search(location.local)
        finished = read_snapshot(directory).facts.get("finished") is not None
        problem, opening = log_to_mlflow(settings, directory, finished, mend=True)
    if problem:
        raise InputError(problem)
    Output().message(
        f"MLflow  {opening}" if opening else "MLflow tracking is disabled for this search (tracking.uri: null)"
    )
