"""Compute dominance, hypervolume, knee and intervals over plain arrays of scores; everything is minimised.

Ranking and hypervolume are Optuna's, whose functions for arrays are private (optuna_internals.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from stepfront.arrays import Array
from stepfront.errors import InputError
from stepfront.search.optuna_internals import compute_hypervolume, fast_non_domination_rank


def domination_rank(scores: Array, penalty: Array | None = None, enough: int | None = None) -> NDArray[np.int64]:
    """Return the ranks [N] of scores [N, M]; 0 is the front.

    `penalty` [N] is the summed violation of constraints (Deb 2002).  With `enough`, ranks are distinguished until that
    many scores have one; all others share the next.
    """
    if not len(scores):
        return np.zeros(0, dtype=np.int64)
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape[1] == 2 and (penalty is None or (penalty <= 0).all()) and np.isfinite(scores).all():
        return _ranks_of_two(scores, len(scores) if enough is None else enough)
    return np.asarray(fast_non_domination_rank(scores, penalty=penalty, n_below=enough))


def _ranks_of_two(scores: Array, enough: int) -> NDArray[np.int64]:
    """Return the ranks [N] of finite scores [N, 2].

    They are those of Optuna's function, which sorts the rows as they are; to sort them by columns is several times as
    fast where trials are thousands.
    """
    order = np.lexsort((scores[:, 1], scores[:, 0]))
    rows = scores[order]
    first = np.concatenate([[True], (rows[1:] != rows[:-1]).any(axis=1)])
    left, best, ranks = np.flatnonzero(first), rows[first, 1], np.zeros(len(rows), dtype=np.int64)
    wanted, rank = len(left) - min(enough, len(left)), 0
    while len(left) > wanted:
        least = np.minimum.accumulate(best)
        dominated = np.concatenate([[False], least[1:] >= least[:-1]])
        ranks[left[~dominated]] = rank
        left, best, rank = left[dominated], best[dominated], rank + 1
    ranks[left] = rank
    found = np.empty(len(rows), dtype=np.int64)
    found[order] = ranks[np.flatnonzero(first)][np.cumsum(first) - 1]
    return found


def front_indices(scores: Array, penalty: Array | None = None) -> NDArray[np.int64]:
    """Return the non-dominated rows, cheapest (last column) first; of equal rows the first."""
    scores = np.asarray(scores, dtype=np.float64)
    if not len(scores):
        return np.zeros(0, dtype=np.int64)
    candidates = np.flatnonzero(domination_rank(scores, penalty, enough=1) == 0)
    if penalty is not None:
        candidates = candidates[penalty[candidates] <= 0]
    _, first = np.unique(scores[candidates], axis=0, return_index=True)
    kept = candidates[np.sort(first)]
    return kept[np.lexsort(scores[kept].T)]


def hypervolume(scores: Array, reference: Sequence[float], only_front: bool = False) -> float:
    """Return the volume between the scores and the reference point; scores that do not dominate it add nothing.

    `only_front` says that no score dominates another, which spares the search for those that do.
    """
    scores, point = np.asarray(scores, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    inside = scores[(scores < point).all(axis=1)] if len(scores) else scores
    return float(compute_hypervolume(inside, point, assume_pareto=only_front)) if len(inside) else 0.0


def hypervolume_gains(points: Array, front: Array, reference: Sequence[float]) -> Array:
    """Return how much each point [N, M] alone would add to the hypervolume of a front [F, M]: [N]; NaN adds nothing."""
    points, limit = np.asarray(points, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if points.shape[1] > 2:
        before = hypervolume(front, reference)
        joined = (np.vstack([front, point]) for point in points)
        gains = [hypervolume(both, reference) - before if np.isfinite(both[-1]).all() else 0.0 for both in joined]
        return np.array(gains)
    # Below a front of two objectives lie columns: from each of its points to the next, as high as the point is.
    front = front[(front < limit).all(axis=1)]
    front = front[np.lexsort(front.T[::-1])]
    starts = np.concatenate([[-np.inf], front[:, 0]])
    ends = np.concatenate([front[:, 0], [limit[0]]])
    heights = np.minimum.accumulate(np.concatenate([[limit[1]], front[:, 1]]))
    widths = np.clip(ends - np.maximum(starts, points[:, :1]), 0, None)
    return np.nan_to_num((widths * np.clip(heights - points[:, 1:], 0, None)).sum(axis=1))


def expected_hypervolume_gains(
    mean: Array,
    deviation: Array,
    costs: Array,
    front: Array,
    reference: Sequence[float],
    within: Sequence[float] = (-np.inf, np.inf),
) -> Array:
    """Return the expected gain of each point [N] whose first score is log-normal and whose second is known: [N].

    `mean` and `deviation` [N] are of the logarithm, `costs` [N] the second scores, `front` [F, 2].  A first score that
    is not `within` an interval gains nothing.  The gain of a score u falls by the height of the column at u that the
    point would fill, so its expectation is exact: the sum over the columns [a, b] of height times E[(b - u)+] -
    E[(a - u)+], each as in Black and Scholes (1973).
    """
    limit = np.asarray(reference, dtype=np.float64)
    front = np.asarray(front, dtype=np.float64).reshape(-1, 2)
    front = front[(front < limit).all(axis=1)]
    front = front[np.lexsort(front.T[::-1])]
    edges = np.concatenate([[0.0], front[:, 0], [limit[0]]])
    heights = np.minimum.accumulate(np.concatenate([[limit[1]], front[:, 1]]))
    spread = np.maximum(deviation, 1e-9)[:, None]
    low, high = within
    below = _expected_shortfall(edges, mean[:, None], spread, high)
    if low > 0:  # a log-normal score is above 0 in any case
        below = below - _expected_shortfall(edges, mean[:, None], spread, low)
    return np.nan_to_num((np.diff(below, axis=1) * np.clip(heights - costs[:, None], 0, None)).sum(axis=1))


def _expected_shortfall(edges: Array, mean: Array, spread: Array, high: float) -> Array:
    """Return E[(edge - u)+] over the u up to `high`, [N, edges], of log-normal u with mean and spread [N, 1]."""
    reached = np.minimum(edges, high)
    with np.errstate(divide="ignore"):
        scaled = (np.log(np.maximum(reached, 0.0)) - mean) / spread
    below = reached * ndtr(scaled) - np.exp(mean + 0.5 * spread**2) * ndtr(scaled - spread)
    # Above `high` an edge is as far beyond each u that counts as `high` is, and by the rest.
    return below if high >= edges[-1] else below + (edges - reached) * ndtr(scaled)


class GrowingFront:
    """Track the front of scores that come one after another, its size and its hypervolume after each."""

    def __init__(self, reference: Sequence[float]) -> None:
        self._reference = list(reference)
        self.scores: Array = np.zeros((0, len(self._reference)))
        self.sizes: list[int] = []
        self.volumes: list[float] = []

    def add(self, scores: Array) -> None:
        """Add scores [N, M] in their order; rows with NaN change nothing."""
        for score in scores:
            volume = self.volumes[-1] if self.volumes else 0.0
            if np.isfinite(score).all() and not (self.scores <= score).all(axis=1).any():
                self.scores = np.vstack([self.scores[~(score <= self.scores).all(axis=1)], score])
                volume = hypervolume(self.scores, self._reference, only_front=True)
            self.sizes.append(len(self.scores))
            self.volumes.append(volume)


def hypervolume_history(scores: Array, reference: Sequence[float]) -> Array:
    """Return the hypervolume of the first 1, 2, ... N scores, [N]; rows with NaN add nothing."""
    growing = GrowingFront(reference)
    growing.add(scores)
    return np.array(growing.volumes)


def front_size_history(scores: Array) -> NDArray[np.int64]:
    """Return how many distinct points the front of the first 1, 2, ... N scores has, [N]."""
    growing = GrowingFront([np.inf] * (scores.shape[1] if scores.ndim == 2 else 2))
    growing.add(scores)
    return np.array(growing.sizes, dtype=np.int64)


def knee_index(scores: Array) -> int:
    """Return the row of a front [N, 2] farthest below the line between its ends, with both axes scaled to [0, 1].

    Fronts of one or two points have no bend: the better first objective wins.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if not len(scores):
        raise InputError("an empty front has no knee")
    span = scores.max(axis=0) - scores.min(axis=0)
    if len(scores) < 3 or (span == 0).any():
        return int(scores[:, 0].argmin())
    scaled = (scores - scores.min(axis=0)) / span
    # In scaled axes the ends are (0, 1) and (1, 0): the distance below their line is 1 - x - y.
    return int((1 - scaled.sum(axis=1)).argmax())


def interval(scores: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Return the mean over seeds, and the ends of its Student interval."""
    mean = float(scores.mean())
    if len(scores) < 2:
        return mean, float("nan"), float("nan")
    half = float(stdtrit(len(scores) - 1, 0.5 + level / 2) * scores.std(ddof=1) / np.sqrt(len(scores)))
    return mean, mean - half, mean + half
