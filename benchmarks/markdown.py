"""Write a table as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd


def markdown(table: pd.DataFrame) -> str:
    """Return a table as Markdown, with its index as the first columns where it has a name."""
    table = table.reset_index() if table.index.names[0] else table
    return "\n".join(markdown_lines(table.columns, table.to_numpy()))


def markdown_lines(head: Iterable[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table of a head and rows of cells."""
    names = [str(name) for name in head]
    return [_line(names), "|" + "---|" * len(names), *(_line(row) for row in rows)]


def page_cells(page_file: Path) -> list[dict[str, str]]:
    """Return the lines of the one table of a page that was written before; none where there is no page."""
    text = page_file.read_text(encoding="utf-8") if page_file.exists() else ""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
