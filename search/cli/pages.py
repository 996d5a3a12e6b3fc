"""Define the verbs that make or open pages about searches: report, compare and ui."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from stepfront.errors import InputError
from stepfront.search.cli.terminal import AsJson, Output, Search, json_rows, refuse_settings


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command(epilog="Example: stepfront report runs/digits")(report)
    app.command(epilog="Example: stepfront compare runs/digits runs/digits-2 --out compare.html")(compare)
    app.command(epilog="Example: stepfront ui runs/digits --port 5001")(ui)


def report(search: Search) -> None:
    """Write the report of a search.

    It is one HTML page that needs no internet connection.
    """
    from stepfront.search.api import open_search

    output, found = Output(), open_search(search)
    output.message(f"report: {found.report()}")
    output.interruption(found.directory, search)


def compare(
    searches: Annotated[
        list[str],
        typer.Argument(
            metavar="SEARCH...", help="directories or URIs of searches or their runs", callback=refuse_settings
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="HTML page to write")] = Path("compare.html"),
    as_json: AsJson = False,
) -> None:
    """Compare several searches on one HTML page.

    The page shows the settings in which they differ, their fronts, what they reach, and their plans side by side.
    FIDs that can't be compared are never drawn on the same axes.  --json prints the numbers of the comparison instead,
    and writes no page.
    """
    from stepfront.dashboards.report import write_comparison

    output = Output(as_json)
    if out.suffix != ".html":
        raise InputError(f"--out {out} is not a .html file; give a name that ends in .html")
    if len(searches) < 2:
        raise InputError(f"only {searches[0]} was given; give at least two searches to compare")
    directories = [_search_to_compare(place, len(searches)) for place in searches]
    _check_different(searches, directories)
    if as_json:
        output.json(_comparison_numbers(directories))
    else:
        output.message(f"report: {write_comparison(directories, out)}")


def _search_to_compare(place: str, count: int) -> Path:
    """Return the directory of a search whose tables can be read; the error says to leave another out of `count`."""
    from stepfront.search.records.run_directory import find_search
    from stepfront.search.storage.run_location import open_for_reading
    from stepfront.tables.search_tables import read_tables

    try:
        directory = find_search(open_for_reading(place).local)[0]
        read_tables(directory)
    except InputError as error:
        raise InputError(f"{error}; or leave {place} out of the comparison" if count > 2 else str(error)) from None
    return directory


def _check_different(searches: Sequence[str], directories: Sequence[Path]) -> None:
    """Raise InputError for a search that is given twice."""
    places = [directory.resolve() for directory in directories]
    for number, place in enumerate(places):
        if (first := places.index(place)) < number:
            raise InputError(f"{searches[first]} and {searches[number]} are the same search; give each once")


def _comparison_numbers(directories: Sequence[Path]) -> dict[str, Any]:
    """Return the numbers of a comparison; `differing` names what keeps the FIDs from being comparable."""
    from stepfront.dashboards.comparison import unlike
    from stepfront.dashboards.differing_settings import NOT_GIVEN, differing_settings
    from stepfront.dashboards.figures.comparison import hypervolume_shares
    from stepfront.tables.search_tables import read_tables

    searches = [read_tables(directory) for directory in directories]
    differing = unlike(searches)
    comparable = not differing and all(len(tables.front) for tables in searches)
    shares = hypervolume_shares([tables.front for tables in searches]) if comparable else [None] * len(searches)
    facts = ("search_id", "dataset", "features", "images", "steps", "solver", "savings")
    settings = differing_settings(searches)
    return {
        "differing": differing or None,
        "settings": {key: [None if v is NOT_GIVEN else v for v in values] for key, values in settings.items()},
        "searches": [
            {"directory": str(tables.directory), "name": tables.name, "trials": len(tables.trials)}
            | {key: tables.facts.get(key) for key in facts}
            | {"hypervolume_share": None if share is None else float(share), "front": json_rows(tables.front)}
            for tables, share in zip(searches, shares, strict=True)
        ],
    }


def ui(
    search: Search,
    port: Annotated[int, typer.Option(min=1, max=65535, help="port of the MLflow server")] = 5000,
    host: Annotated[str, typer.Option(help="address that the server listens on; it has no log-in")] = "127.0.0.1",
) -> None:
    """Open MLflow on a search.

    Starts the server that its runs need, and prints the link to its front.
    """
    from stepfront.search.storage.run_location import open_for_reading
    from stepfront.search.tracking.server import open_ui

    open_ui(open_for_reading(search).local, host, port, Output().message)
