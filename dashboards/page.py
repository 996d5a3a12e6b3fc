"""Write sections as one HTML page that needs no network and follows the reader's light or dark theme."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepfront.files import write_text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_BYTES = 6_000_000

# With this policy the browser refuses any access to the network.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1c2126; --quiet: #5c6670; --line: #d9dee3; --tile: #f4f6f8;
  --accent: #a94a00; }
@media (prefers-color-scheme: dark) { :root { --page: #14181c; --ink: #e4e8ec; --quiet: #9aa5b0; --line: #333b43;
  --tile: #1d2328; --accent: #ff9a52; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 24px 64px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 1.3rem; margin: 52px 0 8px; padding-top: 14px; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 26px 0 6px; }
p { max-width: 76ch; margin: 8px 0; }
.quiet, figcaption { color: var(--quiet); font-size: 0.92rem; }
.summary { font-size: 1.08rem; padding-left: 1.1em; max-width: 80ch; }
.summary li { margin: 7px 0; }
.summary li:first-child { font-weight: 600; }
nav { margin: 20px 0 0; font-size: 0.92rem; line-height: 1.9; }
nav a { color: var(--accent); margin-right: 16px; white-space: nowrap; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 12px; margin: 14px 0; }
.tile { background: var(--tile); border-radius: 8px; padding: 12px 14px; }
.tile b { display: block; font-size: 1.35rem; line-height: 1.3; white-space: nowrap; }
.tile span { color: var(--quiet); font-size: 0.88rem; }
.figure { width: 100%; }
.scroll { width: fit-content; max-width: 100%; overflow: auto; max-height: 620px; margin: 12px 0; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th { position: sticky; top: 0; background: var(--page); text-align: left; color: var(--quiet); font-weight: 600; }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); vertical-align: baseline; }
th.number, td.number { text-align: right; white-space: nowrap; }
td.plan, pre { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 0.82rem; }
td.plan { min-width: 220px; }
pre { background: var(--tile); border-radius: 8px; padding: 12px 14px; overflow-x: auto; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 0 24px; }
.beside > div { min-width: 0; }
.images { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 18px; }
.images figure { margin: 0; }
.images img { width: 100%; image-rendering: pixelated; border-radius: 4px; }
@media print {
  :root { --page: #ffffff; --ink: #000000; --quiet: #444444; --line: #bbbbbb; --tile: #f2f2f2; }
  main { padding: 0; max-width: none; }
  nav { display: none; }
  body { font-size: 11pt; }
  table { font-size: 8pt; }
  th, td { padding: 3px 8px 3px 0; }
  td.plan { min-width: 130px; font-size: 7.5pt; }
  .scroll { overflow: visible; max-height: none; }
  .figure, .tile, .images figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  pre { white-space: pre-wrap; }
}
"""

SCRIPT = """
const palettes = { light: { ink: '#2b3238', grid: '#e1e5e9' }, dark: { ink: '#d3d9df', grid: '#343c44' } };
const dark = matchMedia('(prefers-color-scheme: dark)');
const boxes = Array.from(document.querySelectorAll('.figure'));
function colours(layout, palette) {
  const changes = { 'font.color': palette.ink };
  for (const key of Object.keys(layout).filter(key => /^[xy]axis[0-9]*$/.test(key))) {
    Object.assign(changes, { [key + '.gridcolor']: palette.grid, [key + '.linecolor']: palette.grid });
  }
  (layout.annotations || []).forEach((_, index) => { changes['annotations[' + index + '].font.color'] = palette.ink; });
  return changes;
}
function repaint(palette, size) {
  boxes.forEach(box => Plotly.relayout(box, Object.assign(colours(box.layout, palette), size)));
}
const chosen = () => palettes[dark.matches ? 'dark' : 'light'];
Promise.all(boxes.map(box => {
  const figure = JSON.parse(document.getElementById(box.id + '-data').textContent);
  return Plotly.newPlot(box, figure.data, figure.layout, { displayModeBar: false, responsive: true });
})).then(() => repaint(chosen(), {}));
dark.addEventListener('change', () => repaint(chosen(), {}));
addEventListener('beforeprint', () => repaint(palettes.light, { width: 690 }));
addEventListener('afterprint', () => repaint(chosen(), { width: null, autosize: true }));
"""


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
        f'role="img" aria-label="{escape(caption)}"></div><figcaption>{escape(caption)}</figcaption></figure>'
        f'<script type="application/json" id="figure-{name}-data">{content}</script>'
    )


def html_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table of escaped cells.

    The column "plan" is set in a monospaced font; a column whose name starts with ">" is aligned right.
    """
    looks = ["plan" if name == "plan" else "number" if name.startswith(">") else "" for name in columns]
    names = [escape(name.lstrip(">")) for name in columns]
    head = "".join(f'<th scope="col" class="{look}">{name}</th>' for name, look in zip(names, looks, strict=True))

    def line(row: Sequence[Any]) -> str:
        cells = zip(row, looks, strict=True)
        return "<tr>" + "".join(f'<td class="{look}">{escape(str(cell))}</td>' for cell, look in cells) + "</tr>\n"

    body = "".join(map(line, rows))
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def paragraph(text: str) -> str:
    """Return a muted paragraph of escaped text."""
    return f'<p class="quiet">{escape(text)}</p>' if text else ""
