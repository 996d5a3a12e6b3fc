"""Write docs/judges.md in parts: what a run did not measure keeps the figures and the date of the run that did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from benchmarks.blurred_plans import read_section, section
from stepfront.files import write_text
from stepfront.trainers.metrics.examination import STRENGTHS

PAGE = Path("docs/judges.md")
BLURRED = "A blurred plan"
WANTED = ("MobileNetV2", "Inception")
"""Networks that the page names as not measured until their file is given."""


def update_page(path: Path, table: pd.DataFrame, blurred: pd.DataFrame, missing: Sequence[str]) -> None:
    """Write the page with new columns, one per row of `table` [dataset, features, ...], and new rows on blur.

    New columns and rows take the place of old ones.  `missing` are datasets that have never been measured here.
    """
    sections = read_sections(path)
    before = read_section(sections.get(BLURRED, []))
    if len(before) and len(blurred):
        before = before[~before["training steps"].isin(blurred["training steps"])]
    if len(before) or len(blurred):
        sections[BLURRED] = section(pd.concat([part for part in (before, blurred) if len(part)]))
    for dataset, rows in table.groupby("dataset", sort=False):
        name = str(dataset)
        wide = rows.drop(columns="dataset").set_index("features").T.fillna("").map(str)
        sections[name] = markdown(merged(parse_table(sections.get(name, [])), wide))
    measured = {column for lines in sections.values() for column in parse_table(lines).columns}
    lines = introduction([name for name in missing if not any(key.startswith(name) for key in sections)], measured)
    for name, content in sections.items():
        lines += [f"## {name}", "", *content, ""]
    write_text(path, "\n".join(lines))


def introduction(missing: Sequence[str], measured: set[str]) -> list[str]:
    """Return the lines above the first section."""
    strengths = ", ".join(f"{strength:g}" for strength in STRENGTHS)
    lines = [
        "# Judges: which features see what people see",
        "",
        "Made by `make bench-judges`; each column has the date on which it was measured. Scores are Frechet distances",
        "of at most 512 held-out images to the training images, as multiples of the score of unharmed held-out images",
        f"(the floor). Each harm has five strengths ({strengths}). A good judge's score rises with every",
        "one. Floors have the relative spread over 8 draws. A score of training images below 1 shows that a judge sees",
        "memorisation.",
        "",
        "Networks in files are candidates, too: `python -m benchmarks.judges --features-file NAME=FILE`.",
        "`resnet20` is such a file, made by `python -m benchmarks.cifar_resnet` from published weights, which were",
        "trained on the labels of all training images of CIFAR-10.",
    ]
    if absent := [name for name in WANTED if name.lower() not in {column.lower() for column in measured}]:
        lines.append(f"Not measured, because their weights were not at hand: {', '.join(absent)}.")
    if missing:
        lines.append(f"Left out, because their files were missing: {', '.join(missing)}.")
    return [*lines, ""]


def read_sections(path: Path) -> dict[str, list[str]]:
    """Return the lines below each heading of the page, without empty lines at the ends; none where there is no page."""
    sections: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        if line.startswith("## "):
            current = sections.setdefault(line.removeprefix("## "), [])
        elif sections and (line or current):
            current.append(line)
    for lines in sections.values():
        while lines and not lines[-1]:
            lines.pop()
    return sections


def parse_table(lines: Sequence[str]) -> pd.DataFrame:
    """Return a table that `markdown` wrote; an empty one where there is none."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines if line.startswith("|")]
    if len(rows) < 3 or rows[0][0]:
        return pd.DataFrame()
    head, _, *body = rows
    return pd.DataFrame([row[1:] for row in body], index=[row[0] for row in body], columns=head[1:])


def merged(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Return the old table with new columns, in place of old ones of their names; rows as in the longest column."""
    if old.empty:
        return new
    rows = max((list(new.index), list(old.index)), key=len)
    rows += [name for name in old.index.union(new.index, sort=False) if name not in rows]
    kept = old.reindex(rows).fillna("")
    return kept.assign(**{str(name): new[name].reindex(rows).fillna("") for name in new.columns})


def markdown(table: pd.DataFrame) -> list[str]:
    """Return the lines of a table; a row without content is left out."""
    cells: Mapping[str, list[str]] = {str(name): [str(cell) for cell in row] for name, row in table.iterrows()}
    return [
        "| |" + "|".join(f" {name} " for name in table.columns) + "|",
        "|---|" + "---|" * len(table.columns),
        *(f"| {name} | {' | '.join(row)} |" for name, row in cells.items() if any(row)),
    ]
