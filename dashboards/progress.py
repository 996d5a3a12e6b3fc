"""Show a running search or training in the terminal; in plain lines where the output is not a terminal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Table

from stepfront.dashboards.formatting import MISSING, decimal, duration, percent, plural, significant
from stepfront.dashboards.terminal.lines import print_event, wrapping
from stepfront.dashboards.terminal.live_points import LivePoint, live_table

BARS = "▁▂▃▄▅▆▇█"
QUIET_SECONDS = 10.0


def draws_live(console: Console) -> bool:
    """Return whether a view can be redrawn in place: in a terminal that moves its cursor, or with ipywidgets."""
    if console.is_jupyter:
        return find_spec("ipywidgets") is not None
    return console.is_terminal and not console.is_dumb_terminal


class _Pace:
    """The remaining time by the pace since the first update, as a resumed run found earlier work done."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def remaining(self, done: int, total: int, now: float) -> float | None:
        """Return the seconds left; None before anything was done."""
        self._first = self._first or (done, now)
        made, took = done - self._first[0], now - self._first[1]
        return (total - done) * took / made if made > 0 else None


class _Progress:
    """Share what both views need: the remaining time, and where the view is drawn."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or Console()
        self._clock = clock
        self._live = Live(console=self._console, transient=False, auto_refresh=False)
        self._pace = _Pace()
        self._failure_printed = False
        self._said: tuple[float, int] | None = None  # time of the last plain line, and its tenth of the work

    def __enter__(self) -> Self:
        if draws_live(self._console):
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if draws_live(self._console):
            self._live.stop()

    def _show(self, done: int, total: int, line: str, view: Callable[[], RenderableType]) -> None:
        if draws_live(self._console):
            self._live.update(view(), refresh=True)
            return
        now, tenth = self._clock(), 10 * done // total if total else 0
        if self._said is None or now - self._said[0] >= QUIET_SECONDS or tenth > self._said[1]:
            self._said = (now, tenth)
            print_event(self._console, line)


class SearchProgress(_Progress):
    """Show a running search.  Use it in a `with` statement and call `update` after each trial."""

    def update(
        self,
        done: int,
        total: int,
        failed: int,
        front: Sequence[LivePoint],
        hypervolume: list[float],
        workers: int,
        seconds: float,
        first_failure: str = "",
    ) -> None:
        """Show the search after a trial.

        `total` is 0 where the budget has no number of trials: then neither a share nor the remaining time is known.
        `front` holds its points, cheapest first, `hypervolume` its values so far, `seconds` the wall clock.
        The reason in `first_failure` is printed once.
        """
        if first_failure and not self._failure_printed:
            self._failure_printed = True
            print_event(self._console, f"a trial failed: {first_failure}")
        trials = f"{done}/{total} trials" if total else plural(done, "trial")
        parts = [trials, f"{failed} failed", plural(workers, "worker"), f"{duration(seconds)} so far"]
        if total:
            remaining = self._pace.remaining(done, total, seconds)
            parts.append(f"{MISSING if remaining is None else duration(remaining)} left")
        told = ", ".join(parts)
        if hypervolume:
            parts.append(f"hypervolume {significant(hypervolume[-1], 4)}")
        if front:
            parts.append(f"best FID {decimal(min(point.fid for point in front))}")

        def view() -> RenderableType:
            course = f"hypervolume {sparkline(hypervolume)} {significant(hypervolume[-1], 4)}" if hypervolume else ""
            bar = [_bar(done, total)] if total else []
            return Group(*bar, wrapping(told), wrapping(course), live_table(front))

        self._show(done, total, ", ".join(parts), view)


class TrainingProgress(_Progress):
    """Show a running training.  Use it in a `with` statement and call `update` every few steps."""

    def update(self, step: int, total: int, losses: dict[float, float]) -> None:
        """Show the training after a step; `losses` holds the loss of each width."""
        now = self._clock()
        remaining = self._pace.remaining(step, total, now)
        said = ", ".join(f"{width:g}: {loss:.4f}" for width, loss in sorted(losses.items()))
        left = "" if remaining is None else f", {duration(remaining)} left"
        line = f"step {step}/{total}{left}" + (f", loss by width {said}" if said else "")
        self._show(step, total, line, lambda: Group(_bar(step, total), wrapping(line)))


@contextlib.contextmanager
def progress_bar(
    console: Console, what: str, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int, int, str], None]]:
    """Show a progress bar with the remaining time; where it can't be redrawn, print one line per tenth of the work.

    Yields a function that takes the finished and the total number, and a description.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    printed: dict[str, int] = {}
    paces: dict[str, _Pace] = {}
    with Progress(*columns, console=console, disable=not draws_live(console)) as progress:
        task = progress.add_task(what, total=None)

        def update(done: int, total: int, now: str) -> None:
            progress.update(task, completed=done, total=total, description=now)
            remaining = paces.setdefault(now, _Pace()).remaining(done, total, clock())
            tenth = 10 * done // max(1, total)
            if not draws_live(console) and tenth > printed.get(now, -1):
                printed[now] = tenth
                left = "" if remaining is None else f", {duration(remaining)} left"
                print_event(console, f"{now}: {done}/{total}{left}")

        yield update


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Draw `values` in at most `width` characters, lowest to highest; each shows the last value of its span."""
    count = min(len(values), width)
    shown = [values[(place + 1) * len(values) // count - 1] for place in range(count)]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    top = len(BARS) - 1
    return "".join(BARS[round(top * (value - low) / (high - low))] if high > low else BARS[0] for value in shown)


def _bar(done: int, total: int) -> RenderableType:
    line = Table.grid(padding=(0, 1))
    line.add_row(ProgressBar(total=max(total, 1), completed=done, width=50), percent(done / max(total, 1)))
    return line
