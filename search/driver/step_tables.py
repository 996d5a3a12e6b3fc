"""Make the tables that show which steps matter: the measured gap, and what the model of FID says of each stretch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from stepfront.arrays import Array
from stepfront.search.algorithm.surrogate import LEAST_TRIALS, MOST_STRETCHES, PlanFeatures, Surrogate
from stepfront.search.algorithm.transfer import TransferModel, make_model
from stepfront.search.genomes.encodings import SKIP_LEVEL, Encoding, Levels
from stepfront.search.pareto import domination_rank

MOST_PLANS = 20
"""Front points whose stretches are varied."""


def gap_table(gap: Array, times: Sequence[float], widths: Sequence[float]) -> pd.DataFrame:
    """Return one row per step and width of a gap table [steps, widths]."""
    steps = len(times)
    return pd.DataFrame(
        {
            "step": np.repeat(np.arange(1, steps + 1), len(widths)),
            "time": np.repeat(np.asarray(times, dtype=float), len(widths)),
            "width": np.tile(np.asarray(widths, dtype=float), steps),
            "gap": np.asarray(gap, dtype=float).ravel(),
        }
    )


def sensitivity_table(
    trials: pd.DataFrame, front: pd.DataFrame, features: PlanFeatures, encoding: Encoding
) -> pd.DataFrame:
    """Return one row per stretch of steps and width: by what factor the model's FID changes against full width there.

    The model learns all trials but fits, as the proxy `model` does.  Then each stretch of each front point is set to
    each width, while the rest of the plan stays; `factor` is the geometric mean over these plans.  A stretch that all
    of them skip has no row, and no table has rows with fewer than `LEAST_TRIALS` trials.
    """
    complete = trials[(trials["state"] == "complete") & (trials["origin"] != "fit")].sort_values(["elapsed", "trial"])
    rows: list[dict[str, float]] = []
    if len(complete) >= LEAST_TRIALS and len(front):  # where no trial keeps the constraints, there is no front
        model = make_model(features)
        scores = complete[["fid", "gflops"]].to_numpy(dtype=np.float64)
        levels = [encoding.unpack(genome) for genome in complete["genome"]]
        model.learn(features(levels), scores[:, 0], lambda most: domination_rank(scores, enough=most))
        chosen = np.unique(np.linspace(0, len(front) - 1, MOST_PLANS).astype(int))
        plans = [encoding.unpack(genome) for genome in front["genome"].iloc[chosen]]
        rows = _rows(model, plans, features, encoding)
    return pd.DataFrame(rows, columns=["first_step", "last_step", "width", "factor", "plans"]).astype(
        {"first_step": int, "last_step": int, "plans": int}
    )


def _rows(
    model: Surrogate | TransferModel, plans: Sequence[Levels], features: PlanFeatures, encoding: Encoding
) -> list[dict[str, float]]:
    count = min(encoding.units, MOST_STRETCHES)
    edges = [part * encoding.units // count for part in range(count + 1)]
    ends = np.append(0, np.cumsum(encoding.lengths))
    rows = []
    for first, last in pairwise(edges):
        taking = [plan for plan in plans if (plan[first:last] != SKIP_LEVEL).any()]
        if not taking:
            continue
        logs = [
            model.predict(features([_with_level(plan, first, last, level) for plan in taking]))[0]
            for level in encoding.plain_levels
        ]
        stretch = {"first_step": int(ends[first]) + 1, "last_step": int(ends[last])}
        rows += [
            {**stretch, "width": width, "factor": float(np.exp((log - logs[-1]).mean())), "plans": len(taking)}
            for width, log in zip((encoding.widths[i] for i in encoding.plain_levels), logs, strict=True)
        ]
    return rows


def _with_level(plan: Levels, first: int, last: int, level: int) -> Levels:
    """Return a plan with another level in the units of a stretch that run; levels are not made valid by it."""
    changed = np.array(plan)
    part = changed[first:last]
    part[part != SKIP_LEVEL] = level
    return changed
