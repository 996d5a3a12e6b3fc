"""Write docs/bench-solvers.md: which solver and which grid at how many steps."""

from __future__ import annotations

import pandas as pd

from benchmarks.markdown import markdown
from benchmarks.samplers.tables import (
    HAND,
    closed_forms,
    facts,
    judges_of,
    over_supernets,
    relative,
    rounded,
)
from stepfront.trainers.config import SamplerSettings

SHOWN = 16
"""Pairs in the table of all judges."""


def solvers_page(
    tables: dict[str, pd.DataFrame], made: str, notes: str, others: str = "", only: str | None = None
) -> str:
    """Return the text of the page, of `only` one supernet or of all; `others` is a line that links other pages."""
    tables = {name: closed_forms(table) for name, table in tables.items()}
    tables = {name: table for name, table in tables.items() if len(table)}
    title = "# Solvers and time grids" + (f": {only}" if only else "")
    parts = [title, made, INTRODUCTION, notes, others, "## Which to take", chosen(tables) if tables else NOTHING]
    for name, table in tables.items():
        parts += [f"## {name}", facts(table)]
        for judge in judges_of(table):
            parts += [f"### {judge.removeprefix('FD ')}", markdown(best_grids(table, judge))]
        parts += ["### All judges", markdown(ranking(table))]
    return "\n\n".join(part for part in parts if part) + "\n"


INTRODUCTION = """\
Frechet distances at full width, on noise seeds on which no plan is chosen. The first judge of a supernet is that of a
search; the others see other things. A judge's table has the best grid of each solver per number of steps. The table
of all judges has the distance as a multiple of the best pair's at that number of steps, geometric mean over the
judges."""

NOTHING = "No number of steps has scores of all hand samplers yet."


def chosen(tables: dict[str, pd.DataFrame]) -> str:
    """Return the hand samplers over all supernets, and what follows for the default."""
    ranked = over_supernets(tables)
    steps = [column for column in ranked if not isinstance(column, str)]
    default = f"{SamplerSettings().solver}, {SamplerSettings().grid}"
    best = pd.DataFrame({"best": ranked[steps].idxmin(), "default": ranked.loc[default, steps]}).rename_axis("steps")
    best["best's"] = ranked[steps].min()
    best = best[["best", "best's", "default"]]
    numbers = ["best's", "default"]
    place = list(ranked.index).index(default) + 1
    verdict = "the best" if place == 1 else f"number {place} of {len(ranked)}; the best is `{ranked.index[0]}`"
    mean, worst, over = "judges and supernets", "on any supernet\nat any number of steps", "Over all of these the"
    if len(tables) == 1:
        mean, worst, over = "judges", "at any number of steps", "The"
    return "\n\n".join(
        [
            f"The hand samplers on {', '.join(tables)}:\nmultiples of the best one's distance, geometric mean over "
            f"{mean}; `worst` is the largest {worst}.",
            markdown(rounded(ranked)),
            f"{over} default, `{default}`, is {verdict}. Per number of steps:",
            markdown(best.assign(**rounded(best[numbers]))),
        ]
    )


def best_grids(table: pd.DataFrame, judge: str) -> pd.DataFrame:
    """Return, per solver and number of steps, the least distance and its grid."""
    means = table.groupby(["solver", "grid", "steps"])[judge].mean().reset_index()
    best = means.loc[means.groupby(["solver", "steps"])[judge].idxmin()]
    cells = best.assign(cell=[f"{v:.3g} {g}" for v, g in zip(best[judge], best["grid"], strict=True)])
    return cells.pivot(index="solver", columns="steps", values="cell").fillna("not run")


def ranking(table: pd.DataFrame) -> pd.DataFrame:
    """Return the best pairs by all judges, those that were measured at all numbers of steps first."""
    wide = relative(table).unstack("steps")
    wide["all"] = wide.mean(axis=1, skipna=False)
    complete = wide["all"].notna()
    shown = wide[complete] if complete.sum() > len(HAND) else wide[wide.index.isin(HAND)]
    return rounded(shown.sort_values("all").head(SHOWN))
