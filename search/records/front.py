"""Make the front's table: the non-dominated trials, their labels, and what a confirmation adds to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from stepfront.search.pareto import domination_rank, front_indices, interval, knee_index
from stepfront.search.records.within_noise import NOT_WITHIN, mark_by_confirmation
from stepfront.tables.parquet import read_table
from stepfront.tables.schema import CONFIRM, NOT_CONFIRMED


def front_table(trials: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    """Return the non-dominated feasible trials, cheapest first, with labels for the knee, the best and the cheapest."""
    complete = trials[trials["state"] == "complete"].reset_index(drop=True)
    scores = complete[list(objectives)].to_numpy(dtype=np.float64)
    front = complete.iloc[front_indices(scores, complete["violation"].to_numpy(dtype=np.float64))]
    front = front.sort_values([objectives[1], "fid"]).reset_index(drop=True)
    front = front.assign(**NOT_CONFIRMED, within_noise=NOT_WITHIN)
    return label_front(front, "fid", objectives[1])


def label_front(front: pd.DataFrame, score: str, cost: str) -> pd.DataFrame:
    """Return the front with the labels that people ask for: knee, best and cheapest, the last by the search's cost."""
    labels: list[list[str]] = [[] for _ in range(len(front))]
    candidates = np.flatnonzero(front["belongs"].to_numpy(dtype=bool))
    if len(candidates):
        points = front[[score, cost]].to_numpy(dtype=np.float64)[candidates]
        labels[candidates[knee_index(points)]].append("knee")
        labels[candidates[int(points[:, 0].argmin())]].append("best")
        labels[candidates[int(points[:, 1].argmin())]].append("cheapest")
    return front.assign(label=[",".join(names) for names in labels])


def read_confirmed(directory: Path) -> pd.DataFrame | None:
    """Return all confirmed scores of a search, or None where it was never confirmed."""
    path = directory / CONFIRM
    return read_table(path) if path.exists() else None


def mark_used(confirmed: pd.DataFrame) -> pd.DataFrame:
    """Return the scores with a column `used`: those that front and report are made of.

    Scores of different numbers of images do not compare, so all used scores have the same number.  It is the number at
    which most plans have scores, and of several such the largest.  Of their noise seeds those are used that all plans
    have: seeds that a few plans have more, for a claim, would tear means apart.
    """
    plans = confirmed.groupby("images")["plan"].nunique()
    used = confirmed["images"] == max(plans.index, key=lambda images: (plans[images], images))
    seeds = [set(rows["noise_seed"]) for _, rows in confirmed[used].groupby(_identity(confirmed))]
    common = set.intersection(*seeds)
    if len(common) > 1:
        used &= confirmed["noise_seed"].isin(common)
    return confirmed.assign(used=used)


def _identity(confirmed: pd.DataFrame) -> list[str]:
    """Return the columns that tell plans apart."""
    return [name for name in ("plan", "sampler") if name in confirmed]


def with_confirmation(front: pd.DataFrame, confirmed: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    """Return the front with confirmed scores and intervals.

    `belongs` is whether a point is still on the front by these scores.
    """
    front = front.assign(**NOT_CONFIRMED)
    own = confirmed[confirmed["sampler"] == ""] if "sampler" in confirmed else confirmed
    by_plan = {str(plan): rows.drop_duplicates("noise_seed") for plan, rows in own.groupby("plan")}
    for i, plan in front["plan"].items():
        if plan in by_plan:
            _add_scores(front, i, by_plan[plan])
    scored = front["fid_confirmed"].notna().to_numpy()
    if scored.any():
        points = front.loc[scored, ["fid_confirmed", *objectives[1:]]].to_numpy(dtype=np.float64)
        belongs = np.ones(len(front), dtype=bool)
        belongs[np.flatnonzero(scored)] = domination_rank(points) == 0
        front["belongs"] = belongs
        front = mark_by_confirmation(front, by_plan, objectives[1])
    return label_front(front, "fid_confirmed" if scored.all() else "fid", objectives[1])


def _add_scores(front: pd.DataFrame, i: object, rows: pd.DataFrame) -> None:
    """Write the means and intervals of one plan's scores [seeds] into row `i` of the front."""
    front.loc[i, ["fid_confirmed", "fid_low", "fid_high"]] = interval(rows["fid"].to_numpy(dtype=np.float64))
    front.loc[i, "confirm_images"], front.loc[i, "confirm_seeds"] = int(rows["images"].iloc[0]), len(rows)
    if "fid_infinity" in rows and rows["fid_infinity"].notna().any():
        front.loc[i, "fid_infinity"] = float(rows["fid_infinity"].mean())
    # Seeds scored before there were these scores, or against fewer real images, do not count in them.
    beside = rows.dropna(subset=["kid"]) if "kid" in rows else rows.head(0)
    beside = beside[beside["real_images"] == beside["real_images"].max()] if len(beside) else beside
    if len(beside):
        front.loc[i, ["kid", "kid_low", "kid_high"]] = interval(beside["kid"].to_numpy(dtype=np.float64))
        means = [float(beside[name].mean()) for name in ("precision", "recall")]
        front.loc[i, ["precision", "recall"]] = means
    second = rows.dropna(subset=["second_fid"]) if "second_fid" in rows else rows.head(0)
    if len(second):
        judged = interval(second["second_fid"].to_numpy(dtype=np.float64))
        front.loc[i, ["second_confirmed", "second_low", "second_high"]] = judged
        front.loc[i, "second_features"] = str(second["second_features"].iloc[0])
