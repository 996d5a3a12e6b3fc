"""Define what the verbs share: arguments, and where they write progress, messages and JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, RenderableType

from stepfront.addresses import is_uri, shown
from stepfront.dashboards.terminal.lines import TIME, print_event, print_text
from stepfront.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def refuse_settings(context: typer.Context, places: Any) -> Any:
    """Return the places of searches as given.  Raises InputError for a settings file, with the run that it is of."""
    for place in [places] if isinstance(places, str) else places or []:
        if place.endswith((".yaml", ".yml")) and not is_uri(place) and Path(place).is_file():
            from stepfront.search.config import load_settings

            run = load_settings(Path(place)).run_place
            if is_uri(run) or (Path(run) / "search").is_dir():
                meant = f"its run is {shown(run)}: stepfront {context.info_name} {shown(run)}"
            else:
                meant = f"its run {run} has no search yet; begin one with: stepfront search {place}"
            raise InputError(f"{place} is a settings file; {meant}")
    return places


Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="settings file in YAML, such as configs/digits.yaml")]
Search = Annotated[
    str,
    typer.Argument(
        metavar="SEARCH",
        help="directory or URI of a search or its run, such as runs/digits",
        callback=refuse_settings,
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a setting, such as budget.trials=200")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="start over; deletes the verb's earlier results")]
Point = Annotated[
    str,
    typer.Option(
        help="front point: knee, best, cheapest, a trial's number, or a query: 'fid<=12' (the cheapest so good) or "
        "'gflops<=1.5' (the best so cheap)"
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="print the result as JSON on stdout; messages and progress go to stderr")
]


@dataclass(frozen=True)
class Output:
    """Where a verb writes: messages and progress, and with `as_json` one JSON value alone on stdout."""

    as_json: bool = False

    @cached_property
    def console(self) -> Console:
        """Return the console for messages and progress: stdout, or stderr where stdout is for JSON.

        Its width is that of the terminal; in a log or a pipe that of COLUMNS, or else 140.
        """
        stream = sys.stderr if self.as_json else sys.stdout
        width = None if stream.isatty() or os.environ.get("COLUMNS") else 140
        return Console(highlight=False, soft_wrap=True, width=width, stderr=self.as_json)

    def message(self, text: RenderableType = "", indent: int = 0) -> None:
        """Print a message or a table; a text is wrapped on a terminal, where it continues `indent` to the right."""
        if isinstance(text, str):
            print_text(self.console, text, indent=indent)
        else:
            self.console.print(text)

    def interruption(self, search: Path, place: str) -> None:
        """Print that a search was interrupted and what continues it; nothing where it has ended or a driver works."""
        from stepfront.search.records.run_directory import interruption
        from stepfront.search.storage.run_location import is_at_work

        if (line := interruption(search, place)) and not is_at_work(place, search):
            self.message(line)

    def json(self, value: Any) -> None:
        """Print the verb's result as JSON."""
        typer.echo(json.dumps(value, indent=1, allow_nan=False))

    def stage(self, name: str) -> Callable[[str], None]:
        """Return a function that prints what is being done, dimmed."""
        return lambda text: print_event(self.console, f"{name}: {text}", style="dim")

    def bar(self, what: str) -> AbstractContextManager[Callable[[int, int, str], None]]:
        """Show a progress bar; yields a function of the finished number, the total number and a description."""
        from stepfront.dashboards.progress import progress_bar

        return progress_bar(self.console, what)


def print_warnings() -> None:
    """Print the package's warnings on stderr; where that is a log, with the local time."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s" if sys.stderr.isatty() else "%(asctime)s %(message)s", TIME))
    logging.getLogger("stepfront").handlers = [handler]


def json_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as JSON values; a missing number or point is null."""
    if "within_noise" in table:
        table = table.assign(within_noise=table["within_noise"].astype("Int64").where(table["within_noise"] >= 0))
    rows: list[dict[str, Any]] = json.loads(table.to_json(orient="records", double_precision=15))
    return rows
