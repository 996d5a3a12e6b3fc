"""Dominance, hypervolume, knee and intervals over plain arrays of scores; everything is minimised.

Ranking and hypervolume are Optuna's (its functions are not public; they are used here and nowhere else).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from optuna._hypervolume import compute_hypervolume
from optuna.study._multi_objective import _fast_non_domination_rank
from scipy import stats

from trainers.errors import InputError

Array = NDArray[np.float64]


def domination_rank(scores: Array, penalty: Array | None = None) -> NDArray[np.int64]:
    """[N, M] -> rank [N]; 0 is the front.  `penalty` [N] is the summed violation of constraints (Deb 2002)."""
    if not len(scores):
        return np.zeros(0, dtype=np.int64)
    return np.asarray(_fast_non_domination_rank(np.asarray(scores, dtype=np.float64), penalty=penalty))


def front_indices(scores: Array, penalty: Array | None = None) -> NDArray[np.int64]:
    """The non-dominated rows, cheapest (last column) first; of equal rows the first."""
    scores = np.asarray(scores, dtype=np.float64)
    if not len(scores):
        return np.zeros(0, dtype=np.int64)
    candidates = np.flatnonzero(domination_rank(scores, penalty) == 0)
    if penalty is not None:
        candidates = candidates[penalty[candidates] <= 0]
    _, first = np.unique(scores[candidates], axis=0, return_index=True)
    kept = candidates[np.sort(first)]
    return kept[np.lexsort(scores[kept].T)]


def hypervolume(scores: Array, reference: Sequence[float], only_front: bool = False) -> float:
    """The volume between the scores and the reference point; scores that do not dominate it add nothing.

    `only_front` says that no score dominates another, which spares the search for those that do.
    """
    scores, point = np.asarray(scores, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    inside = scores[(scores < point).all(axis=1)] if len(scores) else scores
    return float(compute_hypervolume(inside, point, assume_pareto=only_front)) if len(inside) else 0.0


def hypervolume_history(scores: Array, reference: Sequence[float]) -> Array:
    """The hypervolume of the first 1, 2, ... N scores, [N]; rows with NaN add nothing."""
    history, volume = np.zeros(len(scores)), 0.0
    for i, front in enumerate(_growing_front(scores)):
        if front is not None:
            volume = hypervolume(front, reference, only_front=True)
        history[i] = volume
    return history


def front_size_history(scores: Array) -> NDArray[np.int64]:
    """How many distinct points the front of the first 1, 2, ... N scores has, [N]."""
    sizes, size = np.zeros(len(scores), dtype=np.int64), 0
    for i, front in enumerate(_growing_front(scores)):
        size = size if front is None else len(front)
        sizes[i] = size
    return sizes


def _growing_front(scores: Array) -> Iterator[Array | None]:
    """The front after each score; None where it did not change, as after most scores."""
    front = np.zeros((0, scores.shape[1] if scores.ndim == 2 else 2))
    for score in scores:
        if np.isfinite(score).all() and not (front <= score).all(axis=1).any():
            front = np.vstack([front[~(score <= front).all(axis=1)], score])
            yield front
        else:
            yield None


def knee_index(scores: Array) -> int:
    """The row of a front [N, 2] farthest below the line between its two ends, with both axes scaled to [0, 1].

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
    """Mean, and Student's interval of the mean over seeds."""
    mean = float(scores.mean())
    if len(scores) < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf(0.5 + level / 2, len(scores) - 1) * scores.std(ddof=1) / np.sqrt(len(scores)))
    return mean, mean - half, mean + half
