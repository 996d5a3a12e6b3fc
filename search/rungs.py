"""Rungs: cheaper scores than FID, and how far they can be trusted.

gap     the summed growth of the denoising loss along the plan; free once the gap table is made
paired  mean squared difference of 32 images to the full-width output of the same noise
fid     the score that a search minimises

A rung's worth is its rank correlation (Kendall's tau) with fid over the trials of the search itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from optuna.trial import FrozenTrial
from scipy.stats import kendalltau
from sklearn.isotonic import IsotonicRegression

from search.encodings import SKIP_LEVEL, Encoding, Levels
from search.front import hypervolume
from search.study import Ledger

Array = NDArray[np.float64]

RungScore = Callable[[Levels], float]
"""Levels of a plan -> its score on a cheap rung; NaN where the rung can't say."""

LEAST_TRIALS = 12
"""Complete trials before a rank correlation says anything."""


def gap_score(encoding: Encoding, gap: Array) -> RungScore:
    """The summed gap of a plan; a skipped step has none, so plans with one score NaN."""
    per_unit = np.add.reduceat(gap, np.cumsum(encoding.lengths) - encoding.lengths, axis=0)

    def score(levels: Levels) -> float:
        if (levels == SKIP_LEVEL).any():
            return float("nan")
        return float(per_unit[np.arange(encoding.units), levels].sum())

    return score


def rank_correlation(lower: Array, upper: Array) -> float:
    """Kendall's tau-b of two scores; NaN with fewer than three pairs or without variation."""
    both = np.isfinite(lower) & np.isfinite(upper)
    if both.sum() < 3:
        return float("nan")
    return float(kendalltau(lower[both], upper[both]).statistic)


def pick_by_rung(
    rung: Sequence[float], costs: Array, known_rung: Array, known_scores: Array, reference: Sequence[float]
) -> int:
    """The child whose predicted score adds most hypervolume; the first where none adds any.

    The rung is carried over to fid by isotonic regression on the known trials: monotone, and no more is assumed.
    `costs` [children, objectives - 1], `known_scores` [trials, objectives] with fid first.
    """
    usable = np.isfinite(known_rung)
    fit = IsotonicRegression(out_of_bounds="clip").fit(known_rung[usable], known_scores[usable, 0])
    predicted = fit.predict(np.asarray(rung, dtype=np.float64))
    base = hypervolume(known_scores, reference)
    gains = [
        hypervolume(np.vstack([known_scores, [fid, *cost]]), reference) - base
        for fid, cost in zip(predicted, costs, strict=True)
    ]
    return int(np.argmax(gains))


def rungs_table(trials: pd.DataFrame, score: RungScore, unpack: Callable[[str], Levels]) -> pd.DataFrame:
    """One row a (trial, rung): the scores of all complete trials on every rung that has one."""
    complete = trials[trials["state"] == "complete"]
    rows = []
    for _, row in complete.iterrows():
        scores = {"gap": score(unpack(row["genome"])), "paired": row["paired"], "fid": row["fid"]}
        rows += [{"trial": int(row["trial"]), "rung": k, "score": float(v)} for k, v in scores.items()]
    return pd.DataFrame(rows, columns=["trial", "rung", "score"]).dropna(subset=["score"])


def correlations(rungs: pd.DataFrame) -> list[dict[str, object]]:
    """Kendall's tau of each cheap rung with fid."""
    wide = rungs.pivot(index="trial", columns="rung", values="score")
    found: list[dict[str, object]] = []
    for lower in ("gap", "paired"):
        if lower in wide and "fid" in wide:
            pairs = wide[[lower, "fid"]].dropna()
            tau = rank_correlation(pairs[lower].to_numpy(), pairs["fid"].to_numpy())
            if np.isfinite(tau):
                found.append({"lower": lower, "upper": "fid", "tau": round(tau, 4), "n": len(pairs)})
    return found


class Screening:
    """Chooses among children by a cheap rung, as long as that rung's rank correlation with fid holds.

    `score` of a child's levels, `known` of a finished trial, `costs_of` a child's other objectives; `watch` hands over
    the ledger, which is made after the sampler that screens.
    """

    def __init__(
        self,
        score: RungScore,
        known: Callable[[FrozenTrial], float],
        costs_of: Callable[[Levels], list[float]],
        least_tau: float,
    ) -> None:
        self._score, self._known, self._costs_of, self._least_tau = score, known, costs_of, least_tau
        self._ledger: Ledger | None = None
        self._cache: dict[int, float] = {}

    def watch(self, ledger: Ledger) -> None:
        """The ledger whose trials tell how far the rung is to be trusted."""
        self._ledger = ledger

    def __call__(self, children: Sequence[Levels]) -> int:
        if self._ledger is None or (reference := self._ledger.reference_point()) is None:
            return 0
        complete = self._ledger.complete
        scores = self._ledger.scores(complete)
        known = np.array([self._known_score(trial) for trial in complete])
        if np.isfinite(known).sum() < LEAST_TRIALS or not rank_correlation(known, scores[:, 0]) >= self._least_tau:
            return 0
        rung = [self._score(levels) for levels in children]
        if not np.isfinite(rung).all():
            return 0  # the rung can't say, as of skipped steps: the first child is as good as any
        return pick_by_rung(rung, np.array([self._costs_of(levels) for levels in children]), known, scores, reference)

    def _known_score(self, trial: FrozenTrial) -> float:
        if trial.number not in self._cache:
            self._cache[trial.number] = self._known(trial)
        return self._cache[trial.number]
