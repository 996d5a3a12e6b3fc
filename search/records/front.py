"""Make the front's table: the non-dominated trials, their labels, and what a confirmation adds to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from stepfront.arrays import Array
from stepfront.search.objectives import Objectives
from stepfront.search.pareto import domination_rank, front_indices, interval, knee_index
from stepfront.search.records.plan_rows import sampler_name
from stepfront.search.records.within_noise import NOT_WITHIN, mark_by_confirmation
from stepfront.tables.parquet import read_table
from stepfront.tables.schema import CONFIRM, NOT_CONFIRMED, TABLES, confirmed_columns


def front_table(trials: pd.DataFrame, objectives: Objectives) -> pd.DataFrame:
    """Return the non-dominated feasible trials, cheapest first, with labels for the knee, the best and the cheapest."""
    complete = trials[trials["state"] == "complete"].reset_index(drop=True)
    scores = objectives.minimised(complete)
    front = complete.iloc[front_indices(scores, complete["violation"].to_numpy(dtype=np.float64))]
    front = front.sort_values([objectives.cost, "fid"]).reset_index(drop=True)
    front = front.assign(**NOT_CONFIRMED, within_noise=NOT_WITHIN)
    return label_front(front, "fid", objectives.cost)


def label_front(front: pd.DataFrame, score: str, cost: str) -> pd.DataFrame:
    """Return the front with the labels that people ask for: knee, best and cheapest, the last by the search's cost."""
    labels = [""] * len(front)
    candidates = np.flatnonzero(front["belongs"].to_numpy(dtype=bool))
    points = front[[score, cost]].to_numpy(dtype=np.float64)[candidates]
    for place, label in zip(candidates, point_labels(points), strict=True):
        labels[place] = label
    return front.assign(label=labels)


def point_labels(points: Array) -> list[str]:
    """Return the labels of front points by their scores and costs [N, 2]: knee, best, cheapest, several, or empty."""
    labels: list[list[str]] = [[] for _ in points]
    if labels:
        labels[knee_index(points)].append("knee")
        labels[int(points[:, 0].argmin())].append("best")
        labels[int(points[:, 1].argmin())].append("cheapest")
    return [",".join(names) for names in labels]


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
    plans = confirmed.drop_duplicates(["images", *_identity(confirmed)]).groupby("images").size()
    used = confirmed["images"] == max(plans.index, key=lambda images: (plans[images], images))
    seeds = [set(rows["noise_seed"]) for _, rows in confirmed[used].groupby(_identity(confirmed))]
    common = set.intersection(*seeds)
    if len(common) > 1:
        used &= confirmed["noise_seed"].isin(common)
    return confirmed.assign(used=used)


def _identity(confirmed: pd.DataFrame) -> list[str]:
    """Return the columns that tell plans apart."""
    return [name for name in ("plan", "sampler") if name in confirmed]


def own_scores(confirmed: pd.DataFrame) -> list[str]:
    """Return the columns of confirmed scores that are a user's own: those that are none of the schema's."""
    return [str(name) for name in confirmed.columns if name not in TABLES[CONFIRM].names]


def with_confirmation(
    front: pd.DataFrame, confirmed: pd.DataFrame, objectives: Objectives, own: tuple[str, str] | None = None
) -> pd.DataFrame:
    """Return the front with confirmed scores and intervals.

    `belongs` is whether a point is still on the front by these scores.  `own` is the search's own solver and grid,
    where plans choose theirs.
    """
    added = [name for score in own_scores(confirmed) for name in confirmed_columns(score)]
    front = front.assign(**NOT_CONFIRMED, **dict.fromkeys(added, np.nan))
    samplers = confirmed["sampler"] if "sampler" in confirmed else pd.Series("", index=confirmed.index)
    names = confirmed["plan"] + samplers
    by_key = {str(name): rows.drop_duplicates("noise_seed") for name, rows in confirmed.groupby(names)}
    keys = {i: str(row["plan"]) + sampler_name(row, own) for i, row in front.iterrows()}
    trials = zip(front["trial"].astype(int), keys.values(), strict=True)
    by_trial = {trial: by_key[key] for trial, key in trials if key in by_key}
    for i, key in keys.items():
        if key in by_key:
            _add_scores(front, i, by_key[key])
    scored = front["fid_confirmed"].notna().to_numpy()
    if scored.any():
        points = objectives.minimised(front.loc[scored], _confirmed_objectives(front.loc[scored], objectives))
        belongs = np.ones(len(front), dtype=bool)
        belongs[np.flatnonzero(scored)] = domination_rank(points) == 0
        front["belongs"] = belongs
        by_trial = {trial: by_trial[trial] for trial in front.loc[scored, "trial"]}  # a row each in `points`
        front = mark_by_confirmation(front, by_trial, objectives.cost, objectives.others(points))
    return label_front(front, "fid_confirmed" if scored.all() else "fid", objectives.cost)


def _confirmed_objectives(front: pd.DataFrame, objectives: Objectives) -> list[str]:
    """Return the columns that hold the objectives on held-out noise seeds; costs do not depend on the noise."""
    confirmed = {name: confirmed_columns(name)[0] for name in ("fid", *objectives.scores)}
    # Scores that were added after the confirmation are still those of the search.
    known = {name: column for name, column in confirmed.items() if column in front and front[column].notna().all()}
    return [known.get(name, name) for name in objectives.names]


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
    for score in own_scores(rows):
        values = rows[score].dropna().to_numpy(dtype=np.float64)
        if len(values):  # none where the score was added to a confirmation that was then interrupted
            front.loc[i, list(confirmed_columns(score))] = interval(values)
    second = rows.dropna(subset=["second_fid"]) if "second_fid" in rows else rows.head(0)
    if len(second):
        judged = interval(second["second_fid"].to_numpy(dtype=np.float64))
        front.loc[i, ["second_confirmed", "second_low", "second_high"]] = judged
        front.loc[i, "second_features"] = str(second["second_features"].iloc[0])
