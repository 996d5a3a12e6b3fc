"""Write docs/judges.md in parts: what a run did not measure keeps the figures and the date of the run that did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from benchmarks.blurred_plans import read_section, section
from stepfront.files import write_text
from stepfront.trainers.metrics.examination import STRENGTHS
from stepfront.trainers.metrics.harm import HARMS

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
    lines = introduction(sections, missing)
    for name, content in sections.items():
        lines += [f"## {name}", "", *content, ""]
    write_text(path, "\n".join(lines))


def introduction(sections: Mapping[str, Sequence[str]], missing: Sequence[str]) -> list[str]:
    """Return the lines above the first section."""
    strengths = ", ".join(f"{strength:g}" for strength in STRENGTHS)
    tables = {name: table for name, lines in sections.items() if not (table := parse_table(lines)).empty}
    lines = [
        "# Judges: which features see what people see",
        "",
        "Made by `make bench-judges`; each column has the date on which it was measured. `features.name: auto` takes",
        "the first of `degradations` and `random` that passes its examination on your images. The second judge of a",
        "confirmation is another one.",
        "",
        *summary(tables),
        "",
        "Scores are Frechet distances to the training images. Harmed images are at most 512 held-out images with a",
        f"known harm of five strengths ({strengths}). Their scores are multiples of the *floor*: the score of",
        "the same number of held-out images without harm. A good judge's score rises with every strength. Scores of",
        "missing classes, copies and other sets should be well above 1. A score of training images below 1 shows that",
        "a judge sees memorisation. `D` is the number of features. The participation ratio says in how many directions",
        "they vary. Floors of 256 to 4,096 images have the relative spread over 8 draws. `seconds` are those that it",
        "took to make the features and the statistics of the training images, on one core.",
        "",
        "Networks in files are candidates, too: `python -m benchmarks.judges --features-file NAME=FILE`.",
        "`resnet20` is such a file, made by `python -m benchmarks.cifar_resnet` from published weights, which were",
        "trained on the labels of all training images of CIFAR-10.",
    ]
    measured = {column.lower() for table in tables.values() for column in table.columns}
    if absent := [name for name in WANTED if name.lower() not in measured]:
        lines.append(f"Not measured, because their weights were not at hand: {', '.join(absent)}.")
    if absent := [name for name in missing if not any(key.startswith(name) for key in sections)]:
        lines.append(f"Left out, because their files were missing: {', '.join(absent)}.")
    return [*lines, ""]


def summary(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return one row per candidate over all datasets."""
    rows = {}
    for name in dict.fromkeys(str(column) for table in tables.values() for column in table.columns):
        found = [table[name] for table in tables.values() if name in table]
        orders = [one[harm] for one in found for harm in HARMS if harm in one]
        spreads = [int(text.split("±")[1].strip(" %")) for one in found if "±" in (text := one.get("floor, 512", ""))]
        rows[name] = {
            "examinations passed": f"{sum(one.get('examination') == 'passed' for one in found)} of {len(found)}",
            "orders wrong": f"{sum('wrong' in text for text in orders)} of {len(orders)}",
            "least participation ratio": min(
                (one.get("participation ratio", "") for one in found), key=float, default=""
            ),
            "largest spread of the floor, 512": f"{max(spreads)}%" if spreads else "",
        }
    return markdown(pd.DataFrame(rows).T)


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
