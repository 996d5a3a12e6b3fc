"""A model of FID, learnt on the trials of the search itself: plans and their scores in, predicted scores out.

A Gaussian process (scikit-learn's) over the plan's levels and its summed gap, on log FID.  A linear and a squared
exponential part: what a stage's width is worth by itself, and how stages depend on each other.  The gap says what is
known before the first trial; the levels, where FID disagrees with it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, Kernel, WhiteKernel

from search.encodings import SKIP_LEVEL, Encoding, Levels

Array = NDArray[np.float64]

Worth = Callable[[], NDArray[np.int64]]
"""Ranks of trials [N], asked for only where not all can be learnt; the smallest are."""

MOST_STRETCHES = 20
"""A plan of more units than this is seen as the mean levels of so many stretches of it."""

MOST_TRIALS = 150
"""Learning costs the cube of this, at every proposal."""

LEAST_TRIALS = 12
"""Complete trials before a rank correlation says anything."""

_REFIT = 1.25  # the kernel is fitted anew when there are so many times as many trials


Opinion = Callable[[Levels], float]
"""What an earlier search would say of a plan: its log FID there, in standard deviations from the mean."""


@dataclass(frozen=True)
class PlanFeatures:
    """What the model sees of a plan.  `gap` [steps, widths] is the gap table; `earlier` what other searches taught."""

    encoding: Encoding
    gap: Array
    earlier: tuple[Opinion, ...] = ()

    def __call__(self, levels: Levels) -> Array:
        """Levels [units] -> mean level and, with skip, share of steps left out of each stretch; half the log gap; the
        opinions of earlier searches."""
        e = self.encoding
        taken, per_unit = levels != SKIP_LEVEL, self._unit_gap
        gap = float(per_unit[np.arange(e.units), levels][taken].sum())
        floor = 0.01 * float(per_unit[:, 0].sum())
        columns = [_stretches(np.where(taken, levels, 0) / max(1, e.highest))]
        if e.skip:
            columns.append(_stretches(1.0 - taken))
        known = [0.5 * np.log(max(gap, 0.0) + max(floor, 1e-12)), *(opinion(levels) for opinion in self.earlier)]
        return np.concatenate([*columns, known])

    @cached_property
    def _unit_gap(self) -> Array:
        return np.add.reduceat(self.gap, np.cumsum(self.encoding.lengths) - self.encoding.lengths, axis=0)


def _stretches(values: Array) -> Array:
    count = min(len(values), MOST_STRETCHES)
    edges = np.arange(count + 1) * len(values) // count
    return np.add.reduceat(values, edges[:-1]) / np.diff(edges)


class Surrogate:
    """The model; `learn` everything known, then `predict`.  Which trials it is fitted on depends on their order alone,
    so a search that is resumed goes on with the same predictions."""

    def __init__(self) -> None:
        self._kernel: Kernel | None = None
        self._fitted_on = 0
        self._model: GaussianProcessRegressor | None = None
        self._mean, self._scale = 0.0, 1.0

    def learn(self, features: Sequence[Array], fid: Array, worth: Worth) -> Array:
        """Takes all trials in, in the order of their results; returns what the model says of each without knowing its
        score (leave-one-out, in log FID; Rasmussen & Williams 2006, eq. 5.12).

        Of more than `MOST_TRIALS` those with the smallest `worth` (their domination rank) are learnt; NaN stands for
        the others.
        """
        x, y = np.asarray(features), np.log(np.maximum(fid, 1e-9))
        chosen = np.arange(len(y))
        if len(y) > MOST_TRIALS:
            chosen = np.sort(np.argsort(worth(), kind="stable")[:MOST_TRIALS])
        self._fit_kernel(x, y)
        self._mean, self._scale = float(y[chosen].mean()), float(y[chosen].std()) or 1.0
        x, y = x[chosen], (y[chosen] - self._mean) / self._scale
        self._model = GaussianProcessRegressor(self._kernel, optimizer=None).fit(x, y)
        factor = solve_triangular(self._model.L_, np.eye(len(y)), lower=True, check_finite=False)
        without = np.full(len(fid), np.nan)
        without[chosen] = (y - self._model.alpha_.ravel() / (factor**2).sum(axis=0)) * self._scale + self._mean
        return without

    def predict(self, features: Sequence[Array]) -> tuple[Array, Array]:
        """Mean and standard deviation of log FID, [N] each."""
        assert self._model is not None, "learn comes first"
        mean, deviation = self._model.predict(np.asarray(features), return_std=True)
        return mean * self._scale + self._mean, deviation * self._scale

    def _fit_kernel(self, x: Array, y: Array) -> None:
        """Maximises the likelihood of the first n trials, with n growing by a quarter: cheap, and the same at a resume
        as without one."""
        count = _last_refit(min(len(y), MOST_TRIALS))
        if count == self._fitted_on:
            return
        first = y[:count]
        start = (
            ConstantKernel(1.0, (1e-3, 1e3)) * RBF(1.0, (0.1, 30.0))
            + ConstantKernel(1.0, (1e-3, 1e3)) * DotProduct(1.0)
            + WhiteKernel(0.05, (1e-4, 1.0))
        )
        scaled = (first - first.mean()) / (first.std() or 1.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a bound that is met is no mistake
            self._kernel = GaussianProcessRegressor(start).fit(x[:count], scaled).kernel_
        self._fitted_on = count


def opinion_of(features: PlanFeatures, plans: Sequence[Levels], fid: Array, worth: Worth) -> Opinion:
    """What the search that scored `plans` [N] with `fid` [N] would say of any plan of the same encoding."""
    model = Surrogate()
    model.learn([features(levels) for levels in plans], fid, worth)
    mean, scale = float(np.log(fid).mean()), float(np.log(fid).std()) or 1.0
    return lambda levels: (float(model.predict([features(levels)])[0][0]) - mean) / scale


def _last_refit(count: int) -> int:
    """The largest of 8, 10, 13, 17, ... that is not above `count`; `count` itself below 8."""
    at = 8
    while int(np.ceil(at * _REFIT)) <= count:
        at = int(np.ceil(at * _REFIT))
    return min(at, count)
