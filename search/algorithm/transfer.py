"""Predict the FID of plans from the trials of the search itself and from what earlier searches learnt.

Each earlier search gives a prior mean of log FID.  A model with it learns the residuals of the new trials, and one
model has no prior.  They are mixed by weights in the manner of RGPE (Feurer et al. 2018, arXiv 1802.02219): in how many
bootstrap samples of the trials a model ranks them best, each trial predicted without itself.  An earlier search whose
ranks do not hold on the new trials therefore loses its weight.  Many poor models would win some samples by chance, so
one that is clearly worse than the model without a prior has none at all, as in that paper.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stepfront.arrays import Array
from stepfront.search.algorithm.surrogate import EarlierModel, PlanFeatures, Surrogate, Worth, kernel_trials
from stepfront.search.genomes.encodings import Levels

LEAST_LEAD = 4
"""Complete trials below which an earlier search does not choose among initial plans."""

SAMPLES = 200
"""Bootstrap samples of the trials."""

SPREAD = 0.6
"""Share of the mixture's standard deviation that `predict` returns.

With all of it, expected gains favour plans that the models rank low: searches need more evaluations (docs/search.md).
"""

LEAST_PAIRS = 3
"""Trials below which ranks say nothing, and all models have equal weight."""


class TransferModel:
    """Mix models of FID with the prior means of earlier searches; the interface is that of `Surrogate`.

    The last `earlier` features are the log FID that each earlier search predicts.
    """

    def __init__(self, earlier: int) -> None:
        self._earlier = earlier
        self._members = [Surrogate() for _ in range(1 + earlier)]
        self._lines: list[tuple[Array, Array]] = []
        self.weights: Array = np.full(1 + earlier, 1 / (1 + earlier))
        """Weights of the model without a prior, and of those with each earlier search's."""

    def learn(self, features: Array, fid: Array, worth: Worth) -> Array:
        """Fit all models and their weights; return the mixed leave-one-out prediction of log FID, [N]."""
        own, priors = self._split(features)
        logs = np.log(np.maximum(fid, 1e-9))
        # Lines are fitted when kernels are, so that a resumed search has the same.
        count = kernel_trials(len(logs))
        self._lines = [_line(_sums(prior[:count], logs[:count]).sum(axis=1)) for prior in priors.T]
        means = self._means(priors)
        residuals = np.array(
            [member.learn(own, np.exp(logs - mean), worth) for mean, member in zip(means, self._members, strict=True)]
        )
        # A line that knows a trial's score would flatter the models that have one.
        for mean, prior in zip(means[1:], priors.T, strict=True):
            mean[:count] = left_out_means(prior[:count], logs[:count])
        without = means + residuals
        self.weights = rank_weights(without, logs)
        return self.weights @ without

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Return mean of log FID under the mixture, and `SPREAD` times its standard deviation, [N] each."""
        own, priors = self._split(features)
        parts = [member.predict(own) for member in self._members]
        means = self._means(priors) + np.array([mean for mean, _ in parts])
        spread = np.array([deviation for _, deviation in parts])
        mean = self.weights @ means
        return mean, SPREAD * np.sqrt(self.weights @ (spread**2 + (means - mean) ** 2))

    def mean(self, features: Array) -> Array:
        """Return the mean of log FID under the mixture, [N]."""
        own, priors = self._split(features)
        return self.weights @ (self._means(priors) + np.array([member.mean(own) for member in self._members]))

    def believe(self, features: Array) -> None:
        """Count plans [N, features] as evaluated with what each model expects of them, until `learn` is called."""
        own, _ = self._split(features)
        for member in self._members:
            member.believe(own)

    def _split(self, features: Array) -> tuple[Array, Array]:
        return features[:, : -self._earlier], features[:, -self._earlier :]

    def _means(self, priors: Array) -> Array:
        """Return the prior means [1 + earlier, N] of the models; the first is 0."""
        lines = [a + b * prior for (a, b), prior in zip(self._lines, priors.T, strict=True)]
        return np.array([np.zeros(len(priors)), *lines])


def left_out_means(prior: Array, logs: Array) -> Array:
    """Return what the line from prior [N] to log FID [N] says of each trial when it is fitted to the others, [N]."""
    sums = _sums(prior, logs)
    offset, slope = _line(sums.sum(axis=1, keepdims=True) - sums)
    return np.asarray(offset + slope * prior)


def _sums(prior: Array, logs: Array) -> Array:
    """Return each trial's part of the sums that a line is fitted from, [5, N]."""
    return np.array([np.ones_like(prior), prior, logs, prior**2, prior * logs])


def _line(sums: Array) -> tuple[Array, Array]:
    """Return offset and slope from prior to log FID, by ridge regression towards slope 1; a slope is not negative.

    `sums` [5, ...] are those of `_sums` over the trials of each line.
    """
    count, priors, logs, squares, products = sums
    ridge = 0.1 * count * 0.25
    slope = np.maximum(0.0, (products - priors * logs / count + ridge) / (squares - priors**2 / count + ridge))
    return (logs - slope * priors) / count, slope


def rank_weights(predicted: Array, true: Array) -> Array:
    """Return the weight of each model [M]: the share of bootstrap samples in which it misranks the fewest pairs.

    `predicted` [M, N] is leave-one-out, `true` [N].  Models that tie share a sample.  One whose median number of
    misranked pairs is above the 95th percentile of the first model's, which has no prior, has no weight.
    """
    known = np.isfinite(predicted).all(axis=0)
    predicted, true = predicted[:, known], true[known]
    if len(true) < LEAST_PAIRS:
        return np.full(len(predicted), 1 / len(predicted))
    rng = np.random.default_rng(len(true))
    counts = rng.multinomial(len(true), np.full(len(true), 1 / len(true)), SAMPLES).astype(np.float64)
    losses = np.array([_misranked(row, true, counts) for row in predicted])
    losses[np.median(losses, axis=1) > np.percentile(losses[0], 95)] = np.inf
    best = losses <= losses.min(axis=0) + 1e-9
    return np.asarray((best / best.sum(axis=0)).mean(axis=1))


def _misranked(predicted: Array, true: Array, counts: Array) -> Array:
    """Return the number of misranked pairs in each sample [S], of which `counts` [S, N] are the trials."""
    wrong = (predicted[:, None] < predicted[None]) != (true[:, None] < true[None])
    return np.asarray(((counts @ wrong.astype(np.float64)) * counts).sum(axis=1))


def make_model(features: PlanFeatures) -> Surrogate | TransferModel:
    """Return the model of FID for these features: with the earlier searches that they predict, if any."""
    return TransferModel(len(features.earlier)) if features.earlier else Surrogate()


def fit_earlier_model(
    theirs: PlanFeatures, ours: PlanFeatures, plans: Sequence[Levels], fid: Array, worth: Worth
) -> EarlierModel:
    """Return the model of an earlier search that scored `plans` [N], of this search's encoding, with `fid` [N].

    `theirs` are the features with the gap table of the earlier search, and `ours` those with this one's: where the gap
    says that a step matters more here than there, so does the model.
    """
    model = Surrogate()
    model.learn(theirs(plans), fid, worth)
    return lambda plans: model.predict(ours(plans))[0]
