"""Compute proxies: cheaper scores that stand in for FID.

gap     summed growth of the denoising loss over the plan's steps; free, once the gap table is computed
paired  mean squared difference of 32 images to the full-width output of the same noise
model   FID as a Gaussian process predicts it from the trials so far (surrogate.py); nearly free

`find_proxy` returns the function that makes the proxy of a name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from optuna.trial import FrozenTrial
from scipy.stats import kendalltau
from sklearn.isotonic import IsotonicRegression

from stepfront.arrays import Array
from stepfront.plugins import PROXIES
from stepfront.search.algorithm.surrogate import PlanFeatures, Surrogate
from stepfront.search.algorithm.transfer import TransferModel, make_model
from stepfront.search.algorithm.trials import GENOME, result_of
from stepfront.search.genomes.encodings import SKIP_LEVEL, Encoding, Levels, Plans
from stepfront.search.pareto import domination_rank

_FEW = 500
"""Most pairs of scores whose order is compared pair by pair."""

ProxyScore = Callable[[Levels], float]
"""Return the score of a plan's levels on a cheap proxy; NaN where the proxy is undefined."""


class Proxy(Protocol):
    """A cheap score that learns on the trials so far how it relates to FID.

    Both methods are deterministic: a resumed search calls `learn` with all trials at once and must then make the same
    predictions.  They run in the driver at every proposal, so they should take far less time than an evaluation.
    """

    def learn(self, trials: Sequence[FrozenTrial], scores: Array) -> float:
        """Learn from the trials [N] and their scores [N, objectives], FID first; return the rank correlation with FID.

        Each call has the trials of the call before, in the same order, and perhaps more after them.
        """

    def predict(self, children: Sequence[Levels]) -> Array:
        """Return the expected FID of each child, [N]; NaN where it is unknown."""


class CarriedProxy:
    """A cheap score mapped to FID by isotonic regression: increasing, and no other shape is assumed.

    `score` computes it from a child's levels, `known` reads it from a complete trial.
    """

    def __init__(self, score: ProxyScore, known: Callable[[FrozenTrial], float]) -> None:
        # Plans under way are asked for again after each result.
        scored = lru_cache(maxsize=1024)(lambda levels: score(np.frombuffer(levels, dtype=np.int64)))
        self._score, self._known = lambda levels: scored(levels.tobytes()), known
        self._cached: dict[int, float] = {}
        self._fit = IsotonicRegression(out_of_bounds="clip")

    def learn(self, trials: Sequence[FrozenTrial], scores: Array) -> float:
        """Fit the regression on the trials with a finite score; return the rank correlation with FID."""
        for trial in trials:
            if trial.number not in self._cached:
                self._cached[trial.number] = self._known(trial)
        proxy = np.array([self._cached[trial.number] for trial in trials])
        usable = np.isfinite(proxy)
        if usable.any():
            self._fit.fit(proxy[usable], scores[usable, 0])
        return rank_correlation(proxy, scores[:, 0])

    def predict(self, children: Sequence[Levels]) -> Array:
        """Return the FID that the regression maps each child's score to, [N]; NaN where there is no score."""
        proxy = np.array([self._score(levels) for levels in children])
        expected = np.full(len(proxy), np.nan)
        if (known := np.isfinite(proxy)).any():
            expected[known] = self._fit.predict(proxy[known])
        return expected


class ModelProxy:
    """The surrogate model of FID, or of a user's own score, one standard deviation below its mean.

    This optimism makes a search explore where the model knows little.
    """

    def __init__(self, features: PlanFeatures, levels_of: Callable[[FrozenTrial], Levels], of_fid: bool = True) -> None:
        self._features, self._levels_of, self._of_fid = features, levels_of, of_fid
        self._known: Array | None = None
        self._model = make_model(features) if of_fid else Surrogate(logarithm=False)

    def learn(self, trials: Sequence[FrozenTrial], scores: Array) -> float:
        """Fit the model on the trials; return the rank correlation of its leave-one-out predictions with FID."""
        # One by one: a product of many rows differs in its last digits, and a resumed search has many at once.
        new = [
            self._features([self._levels_of(trial)])
            for trial in trials[0 if self._known is None else len(self._known) :]
        ]
        self._known = np.vstack(new if self._known is None else [self._known, *new])
        without = self._model.learn(self._known, scores[:, 0], lambda most: domination_rank(scores, enough=most))
        return rank_correlation(without, scores[:, 0])

    @property
    def has_earlier(self) -> bool:
        """Whether the model knows of earlier searches."""
        return isinstance(self._model, TransferModel)

    @property
    def trust(self) -> Array:
        """Weights of the model without a prior and of those with each earlier search's, [1 + earlier]."""
        return self._model.weights if isinstance(self._model, TransferModel) else np.ones(1)

    def predict(self, children: Sequence[Levels]) -> Array:
        """Return an optimistic score of each child, [N]."""
        mean, deviation = self.distribution(children)
        return np.exp(mean - deviation) if self._of_fid else mean - deviation

    def distribution(self, children: Plans) -> tuple[Array, Array]:
        """Return mean and standard deviation of each child's log FID, [N] each; of another score, without the log."""
        return self._model.predict(self._features(children))

    def mean(self, plans: Sequence[Levels]) -> Array:
        """Return the mean of each plan's log FID alone, [N], which takes a fraction of the time of both."""
        return self._model.mean(self._features(plans))

    def believe(self, plans: Sequence[Levels]) -> None:
        """Count plans as evaluated with what the model expects of them, until it learns again."""
        self._model.believe(self._features(plans))


def gap_score(encoding: Encoding, gap: Array) -> ProxyScore:
    """Return the score that sums a plan's gap, `gap` [steps, widths]; NaN for plans that skip steps."""
    per_unit = np.add.reduceat(gap, np.cumsum(encoding.lengths) - encoding.lengths, axis=0)

    def score(levels: Levels) -> float:
        widths = levels[: encoding.units]
        if (widths == SKIP_LEVEL).any():
            return float("nan")
        return float(per_unit[np.arange(encoding.units), widths].sum())

    return score


def rank_correlation(lower: Array, upper: Array) -> float:
    """Return Kendall's tau-b of two scores; NaN with fewer than three pairs or without variation."""
    both = np.isfinite(lower) & np.isfinite(upper)
    if both.sum() < 3:
        return float("nan")
    if both.sum() > _FEW:
        return float(kendalltau(lower[both], upper[both]).statistic)
    # Equal to SciPy's to the last bit, without its p value, which takes a tenth of a proposal's time.
    first, second = (x[:, None] < x[None] for x in (lower[both], upper[both]))
    untied = np.count_nonzero(first), np.count_nonzero(second)
    if not all(untied):
        return float("nan")
    concordant, discordant = np.count_nonzero(first & second), np.count_nonzero(first & second.T)
    return float(np.clip((concordant - discordant) / np.sqrt(untied[0]) / np.sqrt(untied[1]), -1.0, 1.0))


@dataclass(frozen=True)
class ProxyInputs:
    """What a proxy may be made from; the functions are called only by proxies that need them.

    `features` returns the plan features with the gap table; `paired` the paired score, None where none is possible.
    `of_fid` is false of a proxy of a user's own score, which may be negative.
    """

    encoding: Encoding
    features: Callable[[], PlanFeatures]
    paired: Callable[[], ProxyScore] | None = None
    of_fid: bool = True

    def levels_of(self, trial: FrozenTrial) -> Levels:
        """Return the levels of a trial's genome."""
        return self.encoding.unpack(trial.user_attrs[GENOME])


def make_gap_proxy(inputs: ProxyInputs) -> Proxy:
    """Return the summed gap, mapped to FID."""
    summed = gap_score(inputs.encoding, inputs.features().gap)
    return CarriedProxy(summed, lambda trial: summed(inputs.levels_of(trial)))


def make_paired_proxy(inputs: ProxyInputs) -> Proxy | None:
    """Return the paired score, mapped to FID; None where it can't be computed."""
    return None if inputs.paired is None else CarriedProxy(inputs.paired(), _recorded_paired)


def make_model_proxy(inputs: ProxyInputs) -> Proxy:
    """Return the surrogate model."""
    return ModelProxy(inputs.features(), inputs.levels_of, inputs.of_fid)


def _recorded_paired(trial: FrozenTrial) -> float:
    score = result_of(trial).get("paired")
    return float("nan") if score is None else float(score)


class ProxyFactory(Protocol):
    """A function that makes the proxy of a search."""

    def __call__(self, inputs: ProxyInputs) -> Proxy | None:
        """Return the proxy; None where it can't be computed from these inputs, so that every child is evaluated."""
        ...


def find_proxy(name: str) -> ProxyFactory:
    """Return how to make a proxy: one of ours, an entry point's, or that of an import path.

    Raises InputError when there is none.
    """
    return PROXIES.load(name)
