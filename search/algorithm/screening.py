"""Proxies: cheaper scores that stand in for FID, and the screening of children by them.

gap     summed growth of the denoising loss over the plan's steps; free, once the gap table is made
paired  mean squared difference of 32 images to the full-width output of the same noise
model   FID as a Gaussian process predicts it from the trials so far (search/surrogate.py); nearly free
fid     the score that a search minimises

A proxy is judged by its rank correlation (Kendall's tau) with FID over the trials of the search.  That of `model` is
leave-one-out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from optuna.trial import FrozenTrial
from scipy.stats import kendalltau
from sklearn.isotonic import IsotonicRegression

from stepfront.search.algorithm.encodings import SKIP_LEVEL, Encoding, Levels
from stepfront.search.algorithm.nsga2 import GENOME
from stepfront.search.algorithm.surrogate import LEAST_TRIALS, PlanFeatures, Surrogate
from stepfront.search.config import ScreenSettings
from stepfront.search.pareto import domination_rank, hypervolume_gains
from stepfront.search.study.ledger import Ledger

Array = NDArray[np.float64]

ProxyScore = Callable[[Levels], float]
"""Levels of a plan -> its score on a cheap proxy; NaN where the proxy can't say."""

PROXIES = ("gap", "paired", "model")


def gap_score(encoding: Encoding, gap: Array) -> ProxyScore:
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


class Proxy(Protocol):
    """What a screening asks of a cheap proxy."""

    def learn(self, trials: Sequence[FrozenTrial], scores: Array) -> float:
        """Takes in the trials [N] and their scores [N, objectives], fid first; returns its correlation with fid.  From
        call to call trials only join at the end."""

    def predict(self, children: Sequence[Levels]) -> Array:
        """The FID that it expects of each child; NaN where it can't say."""


class CarriedProxy:
    """A cheap score, carried over to FID by isotonic regression on the trials: monotone, and no more is assumed.

    `score` of a child's levels, `known` of a finished trial.
    """

    def __init__(self, score: ProxyScore, known: Callable[[FrozenTrial], float]) -> None:
        self._score, self._known = score, known
        self._kept: dict[int, float] = {}
        self._fit = IsotonicRegression(out_of_bounds="clip")

    def learn(self, trials: Sequence[FrozenTrial], scores: Array) -> float:
        for trial in trials:
            if trial.number not in self._kept:
                self._kept[trial.number] = self._known(trial)
        proxy = np.array([self._kept[trial.number] for trial in trials])
        usable = np.isfinite(proxy)
        if usable.any():
            self._fit.fit(proxy[usable], scores[usable, 0])
        return rank_correlation(proxy, scores[:, 0])

    def predict(self, children: Sequence[Levels]) -> Array:
        proxy = np.array([self._score(levels) for levels in children])
        expected = np.full(len(proxy), np.nan)
        expected[np.isfinite(proxy)] = self._fit.predict(proxy[np.isfinite(proxy)])
        return expected


class ModelProxy:
    """The surrogate model, with the optimism that makes a search look where it knows little: a child is expected one
    standard deviation below the mean."""

    def __init__(self, features: PlanFeatures, levels_of: Callable[[FrozenTrial], Levels]) -> None:
        self._features, self._levels_of = features, levels_of
        self._known: Array | None = None
        self._model = Surrogate()

    def learn(self, trials: Sequence[FrozenTrial], scores: Array) -> float:
        # One by one: a product of many rows differs in its last digits, and a resumed search has many at once.
        new = [
            self._features([self._levels_of(trial)])
            for trial in trials[0 if self._known is None else len(self._known) :]
        ]
        self._known = np.vstack(new if self._known is None else [self._known, *new])
        without = self._model.learn(self._known, scores[:, 0], lambda most: domination_rank(scores, enough=most))
        return rank_correlation(without, scores[:, 0])

    def predict(self, children: Sequence[Levels]) -> Array:
        mean, deviation = self._model.predict(self._features(children))
        return np.exp(mean - deviation)


class Screening:
    """Chooses among children by a cheap proxy, as long as that proxy's rank correlation with fid holds.

    `costs_of` a child's other objectives; `watch` hands over the ledger, which is made after the sampler that screens.
    """

    def __init__(self, proxy: Proxy, costs_of: Callable[[Levels], list[float]], least_tau: float) -> None:
        self._proxy, self._costs_of, self._least_tau = proxy, costs_of, least_tau
        self._ledger: Ledger | None = None

    def watch(self, ledger: Ledger) -> None:
        """The ledger whose trials tell how far the proxy is to be trusted."""
        self._ledger = ledger

    def __call__(self, children: Sequence[Levels]) -> int:
        if self._ledger is None or (reference := self._ledger.reference_point()) is None:
            return 0
        complete = self._ledger.complete
        if len(complete) < LEAST_TRIALS:
            return 0
        scores = self._ledger.scores()
        if not self._proxy.learn(complete, scores) >= self._least_tau:
            return 0
        expected = self._proxy.predict(children)
        costs = np.array([self._costs_of(levels) for levels in children])
        return best_child(expected, costs, self._ledger.front_scores(), reference)


def make_screening(
    screen: ScreenSettings,
    encoding: Encoding,
    features: Callable[[], PlanFeatures],
    costs_of: Callable[[Levels], list[float]],
    paired: Callable[[], ProxyScore] | None = None,
) -> Screening | None:
    """The screening of the settings; None where every child is evaluated.  `features` and `paired` make the features of
    plans (with the gap table) and the paired score, where they are wanted."""

    def levels_of(trial: FrozenTrial) -> Levels:
        return encoding.unpack(trial.user_attrs[GENOME])

    def known_paired(trial: FrozenTrial) -> float:
        score = Ledger.result(trial).get("paired")
        return float("nan") if score is None else float(score)

    proxy: Proxy
    if screen.proxy == "model":
        proxy = ModelProxy(features(), levels_of)
    elif screen.proxy == "gap":
        summed = gap_score(encoding, features().gap)
        proxy = CarriedProxy(summed, lambda trial: summed(levels_of(trial)))
    elif screen.proxy == "paired" and paired is not None:
        proxy = CarriedProxy(paired(), known_paired)
    else:
        return None
    return Screening(proxy, costs_of, screen.least_tau)


def best_child(expected: Array, costs: Array, front: Array, reference: Sequence[float]) -> int:
    """The child whose expected FID adds most hypervolume; the first where none adds any, or nothing is expected.

    `expected` [children], `costs` [children, objectives - 1], `front` [points, objectives] with fid first.
    """
    return int(np.argmax(hypervolume_gains(np.column_stack([expected, costs]), front, reference)))


def proxies_table(
    trials: pd.DataFrame, score: ProxyScore, features: PlanFeatures, unpack: Callable[[str], Levels]
) -> pd.DataFrame:
    """One row a (trial, proxy): the scores of all complete trials on every proxy that has one."""
    complete = trials[trials["state"] == "complete"].sort_values(["elapsed", "trial"])
    levels = [unpack(genome) for genome in complete["genome"]]
    fid = complete["fid"].to_numpy(dtype=np.float64)
    without = np.full(len(fid), np.nan)
    if len(fid) >= LEAST_TRIALS:
        scores = complete[["fid", "gflops"]].to_numpy(dtype=np.float64)
        without = np.exp(Surrogate().learn(features(levels), fid, lambda most: domination_rank(scores, enough=most)))
    columns = {"gap": [score(one) for one in levels], "paired": complete["paired"], "model": without, "fid": fid}
    wide = pd.DataFrame(
        {"trial": complete["trial"].astype(int), **{k: np.asarray(v, float) for k, v in columns.items()}}
    )
    return wide.melt("trial", var_name="proxy", value_name="score").dropna(subset=["score"]).reset_index(drop=True)


def correlations(proxies: pd.DataFrame) -> list[dict[str, object]]:
    """Kendall's tau of each cheap proxy with fid; none from fewer than `LEAST_TRIALS` trials."""
    wide = proxies.pivot(index="trial", columns="proxy", values="score")
    found: list[dict[str, object]] = []
    for lower in PROXIES:
        if lower in wide and "fid" in wide:
            pairs = wide[[lower, "fid"]].dropna()
            tau = rank_correlation(pairs[lower].to_numpy(), pairs["fid"].to_numpy())
            if np.isfinite(tau) and len(pairs) >= LEAST_TRIALS:
                found.append({"lower": lower, "upper": "fid", "tau": round(tau, 4), "n": len(pairs)})
    return found
