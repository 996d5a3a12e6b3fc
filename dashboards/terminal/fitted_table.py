"""Draw a table on the width that a terminal has: no line is longer, and no cell is wrapped.

Columns of the highest rank are left out first, then the cells of the one flexible column are shortened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from stepfront.dashboards.terminal.lines import wrapping

GAP = 2
"""Spaces between two columns."""
ELLIPSIS = "…"


@dataclass(frozen=True)
class TextColumn:
    """A column of texts, one per row.

    A column of rank 0 is always drawn.  `shorten` makes the cells of the flexible column fit: it takes a text and a
    number of characters.  That column is given `least` characters before others are left out.
    """

    name: str
    cells: Sequence[str]
    rank: int = 0
    right: bool = False
    shorten: Callable[[str, int], str] | None = None
    least: int = 24

    @property
    def width(self) -> int:
        """Return the characters that the longest cell needs."""
        return max(map(len, [self.name, *self.cells]))


@dataclass(frozen=True)
class FittedTable:
    """A table for `Console.print`; `wide` draws every column complete, however long the lines become.

    `styles` has a style per row.  Below the table stand what was left out, and the `caption`.
    """

    columns: Sequence[TextColumn]
    styles: Sequence[str] = ()
    caption: str = ""
    wide: bool = False
    more: str = ""
    """How to see what was left out, such as `--wide shows all`."""

    @property
    def row_count(self) -> int:
        """Return the number of rows."""
        return len(self.columns[0].cells) if self.columns else 0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table on the width of the options."""
        width = max(options.max_width, self._needed()) if self.wide else options.max_width
        kept = self._kept(width)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in kept:
            table.add_column(Text(column.name), justify="right" if column.right else "left", no_wrap=True)
        limit = width - _total([column for column in kept if column.shorten is None]) - GAP
        for i in range(self.row_count):
            cells = [Text(_cut(column, i, limit)) for column in kept]
            table.add_row(*cells, style=self.styles[i] if self.styles else None)
        yield from console.render(table, options.update(width=width, no_wrap=True))
        for line in filter(None, [self.caption, self._left_out(kept)]):
            yield from console.render(wrapping(line, "dim"), options)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the least and the most width of the table."""
        return Measurement(min(self._needed(), options.max_width), min(self._needed(), options.max_width))

    def _needed(self) -> int:
        return _total(self.columns)

    def _kept(self, width: int) -> list[TextColumn]:
        """Return the columns that fit, with at least `least` characters for the flexible one."""
        kept = list(self.columns)
        for rank in sorted({column.rank for column in kept} - {0}, reverse=True):
            for column in [column for column in reversed(kept) if column.rank == rank]:
                if sum(min(c.width, c.least) if c.shorten else c.width for c in kept) + GAP * (len(kept) - 1) <= width:
                    return kept
                kept.remove(column)
        return kept

    def _left_out(self, kept: Sequence[TextColumn]) -> str:
        missing = [column.name for column in self.columns if column not in kept]
        if not missing:
            return ""
        return f"left out: {', '.join(missing)}" + (f"; {self.more}" if self.more else "")


def _total(columns: Sequence[TextColumn]) -> int:
    return sum(column.width for column in columns) + GAP * max(0, len(columns) - 1)


def _cut(column: TextColumn, row: int, limit: int) -> str:
    text = column.cells[row]
    return text if column.shorten is None else column.shorten(text, max(limit, 1))


def cut_text(text: str, limit: int) -> str:
    """Return the first characters of a text, up to `limit`, the last of them an ellipsis where some are left out."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + ELLIPSIS


def cut_plan(plan: str, limit: int) -> str:
    """Return the first complete runs of a plan, up to `limit` characters, with an ellipsis where some are left out."""
    if len(plan) <= limit:
        return plan
    runs = plan[: max(0, limit - 1)].rsplit(" ", 1)[0] if " " in plan[: max(0, limit - 1)] else ""
    return f"{runs} {ELLIPSIS}" if runs else cut_text(plan, limit)
