"""Write what the parts have measured as Markdown, and the GPU section of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepfront.files import write_text

HEADING = "## GPU"
EMPTY = f"""{HEADING}

Empty: `make bench-gpu` has not been run on a GPU yet. It takes at most 12 minutes, needs torch, NumPy, safetensors,
pydantic, Pillow and SciPy, and trains on a zip or folder of images (`DATA=FILE`).
"""


def markdown(results: Mapping[str, Any], level: int = 1) -> str:
    """Return the results as Markdown, with headings from `level` on."""
    mark, parts = "#" * level, results["parts"]
    text = f"{mark} GPU\n\n"
    text += "By `make bench-gpu`, on a zip or folder of images (`DATA=FILE`); each part ends with the time it took.\n"
    text += f"{results['began']}, {results['device']}; base {results['base']}, batch {results['batch']}.\n"
    for name, part in parts.items():
        text += f"\n{mark}# {part['title']}\n\n"
        text += "".join(f"{_table(title, rows)}\n" for title, rows in part["tables"].items())
        notes = [*part["notes"], f"{name}: {part['outcome']}"]
        text += "".join(f"- {note}\n" for note in notes)
    return text


def _table(title: str, rows: list[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [f"{title}:", "", "| " + " | ".join(each.replace("_", " ") for each in columns) + " |"]
    lines.append("|" + "---|" * len(columns))
    for row in rows:
        lines.append("| " + " | ".join(_cell(row.get(column)) for column in columns) + " |")
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    return "" if value is None else str(value).replace("|", "/")


def gpu_section(page: Path) -> str:
    """Return the GPU section of a page, which is the last one; a section that says it is empty where there is none."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    _, found, section = text.partition(f"\n{HEADING}\n")
    return f"{HEADING}\n{section}" if found else EMPTY


def write_section(page: Path, results: Mapping[str, Any]) -> None:
    """Replace the GPU section of a page by these results."""
    before = page.read_text(encoding="utf-8").partition(f"\n{HEADING}\n")[0]
    write_text(page, f"{before.rstrip()}\n\n{markdown(results, level=2)}")
