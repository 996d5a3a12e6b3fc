"""Write sections as one HTML page that needs no internet and follows the reader's light or dark theme."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepfront.dashboards.html.script import SCRIPT
from stepfront.dashboards.html.style import STYLE
from stepfront.files import write_text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_BYTES = 6_000_000

# With this policy the browser refuses any access to the network.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


@dataclass(frozen=True)
class Section:
    """A part of a page; one whose body is empty is left out."""

    name: str
    title: str
    body: str


def write_page(out: Path, title: str, head: str, sections: Sequence[Section]) -> Path:
    """Write the page beside `out` and rename it, so that nobody ever opens an incomplete one."""
    write_text(out, _page(title, head, [section for section in sections if section.body]))
    return out


def _page(title: str, head: str, sections: Sequence[Section]) -> str:
    from plotly.offline import get_plotlyjs

    links = " ".join(f'<a href="#{section.name}">{escape(section.title)}</a>' for section in sections)
    bodies = "".join(f'<section id="{s.name}"><h2>{escape(s.title)}</h2>{s.body}</section>\n' for s in sections)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<header>{head}<nav>{links}</nav></header>\n{bodies}</main>\n"
        f"<script>{get_plotlyjs()}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def room_for_images(sections: Sequence[Section]) -> int:
    """Return by how many bytes the page may grow beyond these sections, plotly.js and its own text."""
    from plotly.offline import get_plotlyjs

    used = len(get_plotlyjs().encode()) + sum(len(section.body.encode()) for section in sections)
    return MOST_BYTES - used - 50_000


def embedded(name: str, figure: Figure, caption: str) -> str:
    """Return a figure as HTML with a caption, which screen readers read aloud, too."""
    # Escaped, a "<" inside JSON's strings can't end the script.
    content = figure.to_json().replace("<", "\\u003c")
    return (
        f'<figure style="margin:0"><div class="figure" id="figure-{name}" style="height:{figure.layout.height}px" '
        f'role="img" aria-label="{escape(caption)}"></div><figcaption>{escape(caption)} '
        f'<button class="png" data-figure="figure-{name}">PNG</button></figcaption></figure>'
        f'<script type="application/json" id="figure-{name}-data">{content}</script>'
    )


def html_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], name: str = "") -> str:
    """Return a table of escaped cells, which a click on a heading sorts; one with a name can be filtered and saved.

    The column "plan" is set in a monospaced font; a column whose name starts with ">" is aligned right.  Rows of a
    column "trial" carry its number.
    """
    looks = ["plan" if name == "plan" else "number" if name.startswith(">") else "" for name in columns]
    names = [escape(name.lstrip(">")) for name in columns]
    head = "".join(
        f'<th scope="col" class="{look}"><button>{name}</button></th>' for name, look in zip(names, looks, strict=True)
    )
    trial = columns.index(">trial") if ">trial" in columns else None

    def line(row: Sequence[Any]) -> str:
        cells = zip(row, looks, strict=True)
        mark = "" if trial is None else f' data-trial="{escape(str(row[trial]))}"'
        body = "".join(f'<td class="{look}">{escape(str(cell))}</td>' for cell, look in cells)
        return f"<tr{mark}>{body}</tr>\n"

    body = "".join(map(line, rows))
    identity = f' id="table-{name}"' if name else ""
    table = f"<table{identity}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return (_tools(f"table-{name}") if name else "") + f'<div class="scroll">{table}</div>'


def _tools(table: str) -> str:
    """Return what filters a table and saves it."""
    return (
        f'<div class="tools" data-table="{table}"><input type="search" aria-label="filter the rows" '
        'placeholder="filter: words, or FID&lt;2"><button class="csv">CSV</button></div>'
    )


def paragraph(text: str) -> str:
    """Return a muted paragraph of escaped text."""
    return f'<p class="quiet">{escape(text)}</p>' if text else ""
