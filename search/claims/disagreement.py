"""Find pairs of front points that two judges put in opposite orders, beyond the intervals of both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from stepfront.arrays import Array
from stepfront.search.claims.confirmed_plans import judges_of, read_plans, shared_scores

MAX_EXAMPLES = 5


def find_disagreements(confirmed: pd.DataFrame) -> dict[str, Any]:
    """Return how many pairs of front points the judges disagree on, and the clearest of them, as JSON values.

    They disagree where the 95 % interval of the difference, noise seed by noise seed, lies below zero on the first and
    above zero on the second judge.  An example names the point that is `better_on_first` and `better_on_second`.
    """
    points = [plan for plan in read_plans(confirmed) if plan.kind == "front"]
    judges = judges_of(confirmed)
    if len(judges) < 2 or len(points) < 2:
        return {"judges": judges, "pairs": 0, "examples": []}
    (first, first_half), (second, second_half) = map(_pair_differences, shared_scores(points))
    below = (first + first_half < 0) & (second - second_half > 0)
    pairs = np.argwhere(below)
    # The clearest pair is the one whose nearer interval is the farthest from zero, in its own half-widths.
    with np.errstate(divide="ignore"):  # equal differences on all seeds are as clear as can be
        clearness = [min(-first[i, j] / first_half[i, j], second[i, j] / second_half[i, j]) for i, j in pairs]
    order = np.argsort(clearness)[::-1][:MAX_EXAMPLES]
    examples = [
        {"better_on_first": points[i].plan, "better_on_second": points[j].plan}
        | {"trials": [points[i].trial, points[j].trial]}
        | {"differences": [float(first[i, j]), float(second[i, j])]}
        for i, j in pairs[order]
    ]
    return {"judges": judges, "pairs": len(pairs), "examples": examples}


def _pair_differences(scores: Array) -> tuple[Array, Array]:
    """Return means and half-widths of 95 % intervals of all differences [plans, plans] of scores [plans, seeds]."""
    differences = scores[:, None, :] - scores[None, :, :]
    seeds = scores.shape[1]
    if seeds < 2:
        return differences.mean(axis=2), np.full(differences.shape[:2], np.inf)
    half = stdtrit(seeds - 1, 0.975) * differences.std(axis=2, ddof=1) / np.sqrt(seeds)
    return differences.mean(axis=2), half
