"""Read the scores of all supernets, and bring them to what can be compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.samplers.rows import LEARNT, all_pairs
from benchmarks.samplers.supernets import SUPERNETS
from benchmarks.samplers.tasks import collected
from stepfront.trainers.sampler_learning.starts import SAMPLERS

HAND = [f"{solver}, {grid}" for solver, grid in SAMPLERS]


def read_tables(runs: Path, only: str | None = None) -> dict[str, pd.DataFrame]:
    """Return the rows of each supernet that has scores, or of `only` one, by its name."""
    tables = {name: collected(runs, name) for name in SUPERNETS if only in (None, name)}
    return {name: table for name, table in tables.items() if len(table)}


def judges_of(table: pd.DataFrame) -> list[str]:
    """Return the columns that hold distances, `FD` and the judge, of which any row has one."""
    return [name for name in table.columns if name.startswith("FD ") and table[name].notna().any()]


def is_learnt(table: pd.DataFrame) -> pd.Series:
    """Return which rows are of learnt samplers."""
    return table["sampler"].isin(LEARNT)


def is_full_width(table: pd.DataFrame) -> pd.Series:
    """Return which rows are of plans at full width."""
    return table["plan"].str.fullmatch(r"\d+x1\.00")


def closed_forms(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of solvers on grids at full width that compare, step by step.

    At each number of steps these are all pairs, or the hand samplers where some pair has no score, on the noise seeds
    that all of them share.  Numbers of steps at which a hand sampler has no score are left out.
    """
    table = table[is_full_width(table) & ~is_learnt(table)]
    kept = []
    for _, rows in table.groupby("steps"):
        for wanted in ([f"{solver}, {grid}" for solver, grid in all_pairs()], HAND):
            found = _on_shared_seeds(rows[rows["sampler"].isin(wanted)], len(wanted))
            if len(found):
                kept.append(found)
                break
    return pd.concat(kept, ignore_index=True) if kept else table.iloc[:0]


def hand_samplers(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the hand samplers, per plan on the noise seeds that all of them share."""
    hand = table[table["sampler"].isin(HAND)]
    kept = [_on_shared_seeds(rows, len(HAND)) for _, rows in hand.groupby("plan", sort=False)]
    return pd.concat(kept, ignore_index=True) if kept else hand


def _on_shared_seeds(rows: pd.DataFrame, samplers: int) -> pd.DataFrame:
    count = rows.groupby("seed")["sampler"].nunique()
    return rows[rows["seed"].isin(count.index[count == samplers])]


def relative(table: pd.DataFrame) -> pd.Series:
    """Return the distance of each sampler as a multiple of the best one's at its number of steps.

    It is the geometric mean over the judges, indexed by sampler and steps.
    """
    means = table.groupby(["sampler", "steps"])[judges_of(table)].mean()
    return np.exp(np.log(means / means.groupby("steps").min()).mean(axis=1))


def over_supernets(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the hand samplers' `relative` by steps, geometric mean over supernets, best first.

    `all` is the mean over the numbers of steps, and `worst` the largest of all supernets and numbers of steps.
    """
    hand = {name: table[table["sampler"].isin(HAND)] for name, table in tables.items()}
    each = pd.concat({name: relative(table) for name, table in hand.items()}, names=["supernet"])
    wide = np.exp(np.log(each).groupby(["sampler", "steps"]).mean().unstack("steps"))
    wide["all"] = np.exp(np.log(wide).mean(axis=1))
    wide["worst"] = each.groupby("sampler").max()
    return wide.sort_values("all")


def facts(table: pd.DataFrame) -> str:
    """Return how the scores were made, in a sentence."""
    values = {name: ", ".join(map(str, table[name].drop_duplicates())) for name in ("images", "device", "torch")}
    seeds = table.groupby(["plan", "sampler"])["seed"].nunique()
    count = str(seeds.min()) if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    return f"{values['images']} images per score, {count} noise seeds; {values['device']}, torch {values['torch']}."


def rounded(table: pd.DataFrame, digits: int = 2) -> pd.DataFrame:
    """Return numbers as text of so many decimals, and `not run` where there are none."""
    return table.map(lambda value: "not run" if np.isnan(value) else f"{value:.{digits}f}")
