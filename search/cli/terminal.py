"""What the verbs have in common: their arguments, and how they speak on a terminal or where there is none."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from stepfront.search.driver.search_report import SearchReport

out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="a YAML file, such as configs/digits.yaml")]
Search = Annotated[
    str, typer.Argument(metavar="SEARCH", help="a search's or run's directory or URI, such as runs/digits")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a setting, such as budget.trials=200")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="start over; what the verb made before is deleted")]


class LiveView:
    """The terminal's view of a running search."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress

    def update(self, report: SearchReport) -> None:
        """Show the state of the search."""
        self._progress.update(
            report.finished,
            report.total,
            report.failed,
            report.front,
            report.hypervolumes,
            report.workers,
            report.seconds,
        )


def stage(name: str) -> Callable[[str], None]:
    """Tells what is being done, dimmed."""
    return lambda text: out.print(f"{name}: {text}", style="dim")


@contextlib.contextmanager
def bar(what: str) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar with remaining time; plain lines, one each tenth, where there is no terminal to draw on."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    said: dict[str, int] = {}
    with Progress(*columns, console=out, disable=not out.is_terminal) as progress:
        task = progress.add_task(what, total=None)

        def tell(done: int, total: int, now: str) -> None:
            progress.update(task, completed=done, total=total, description=now)
            tenth = 10 * done // max(1, total)
            if not out.is_terminal and tenth > said.get(now, -1):
                said[now] = tenth
                out.print(f"{now}: {done}/{total}")

        yield tell
