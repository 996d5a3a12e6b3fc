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
from scipy.linalg import cholesky, solve_triangular
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, Kernel, WhiteKernel

from stepfront.search.algorithm.encodings import SKIP_LEVEL, Encoding, EvenStages, Levels

Array = NDArray[np.float64]

Worth = Callable[[int], NDArray[np.int64]]
"""How many are wanted -> ranks of all trials [N], asked for only where not all can be learnt; the smallest are."""

MOST_STRETCHES = 20
"""A plan of more units than this is seen as the mean levels of so many stretches of it."""

MOST_TRIALS = 150
"""Learning costs the cube of this, at every proposal."""

LEAST_TRIALS = 12
"""Complete trials before a rank correlation says anything."""

_REFIT = 1.25  # the kernel is fitted anew when there are so many times as many trials


Opinion = Callable[[Sequence[Levels]], Array]
"""What an earlier search would say of plans: their log FID there, in standard deviations from the mean, [N]."""


@dataclass(frozen=True)
class PlanFeatures:
    """What the model sees of a plan.  `gap` [steps, widths] is the gap table; `earlier` what other searches taught."""

    encoding: Encoding
    gap: Array
    earlier: tuple[Opinion, ...] = ()

    def __call__(self, plans: Sequence[Levels]) -> Array:
        """N plans' levels [units] -> [N, features]: mean level and, with skip, share of steps left out of each stretch
        (of the whole, where steps are even); half the log gap; the opinions of earlier searches."""
        e, levels = self.encoding, np.asarray(plans).reshape(len(plans), self.encoding.units)
        share = (levels != SKIP_LEVEL).mean(axis=1, keepdims=True)
        if isinstance(e, EvenStages):
            levels = np.array([_filled(row) for row in levels]).reshape(levels.shape)
        taken, per_unit = levels != SKIP_LEVEL, self._unit_gap
        gap = np.where(taken, per_unit[np.arange(e.units), levels], 0.0).sum(axis=1)
        floor = 0.01 * float(per_unit[:, 0].sum())
        columns = [_stretches(np.where(taken, levels, 0) / max(1, e.highest))]
        if isinstance(e, EvenStages):
            columns.append(-np.log(share))
        elif e.skip:
            columns.append(_stretches(1.0 - taken))
        known = [0.5 * np.log(np.maximum(gap, 0.0) + max(floor, 1e-12)), *(opinion(plans) for opinion in self.earlier)]
        return np.column_stack([*columns, *known])

    @cached_property
    def _unit_gap(self) -> Array:
        return np.add.reduceat(self.gap, np.cumsum(self.encoding.lengths) - self.encoding.lengths, axis=0)


def _filled(levels: Levels) -> Levels:
    """Levels [units] of even steps, each that is left out as the one before it: its step spans it."""
    taken = np.flatnonzero(levels != SKIP_LEVEL)
    return levels[taken[np.searchsorted(taken, np.arange(len(levels)), side="right") - 1]]


def _stretches(values: Array) -> Array:
    units = values.shape[1]
    count = min(units, MOST_STRETCHES)
    edges = np.arange(count + 1) * units // count
    return np.add.reduceat(values, edges[:-1], axis=1) / np.diff(edges)


class Surrogate:
    """The model; `learn` everything known, then `predict`.  Which trials it is fitted on depends on their order alone,
    so a search that is resumed goes on with the same predictions."""

    def __init__(self) -> None:
        self._kernel: Kernel | None = None
        self._fitted_on = 0
        self._posterior: _Posterior | None = None
        self._mean, self._scale = 0.0, 1.0

    def learn(self, features: Array, fid: Array, worth: Worth) -> Array:
        """Takes all trials [N, features] in, in the order of their results; returns what the model says of each without
        knowing its score (leave-one-out, in log FID).

        Of more than `MOST_TRIALS` those with the smallest `worth` (their domination rank) are learnt; NaN stands for
        the others.
        """
        x, y = features, np.log(np.maximum(fid, 1e-9))
        chosen = np.arange(len(y))
        if len(y) > MOST_TRIALS:
            chosen = np.sort(np.argsort(worth(MOST_TRIALS), kind="stable")[:MOST_TRIALS])
        all_x, all_y = x, y
        self._mean, self._scale = float(y[chosen].mean()), float(y[chosen].std()) or 1.0
        x, y = x[chosen], (y[chosen] - self._mean) / self._scale
        self._posterior = _Posterior(self._fit_kernel(all_x, all_y), x, y)
        without = np.full(len(fid), np.nan)
        without[chosen] = self._posterior.leave_one_out() * self._scale + self._mean
        return without

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of log FID, [N] each."""
        assert self._posterior is not None, "learn comes first"
        mean, deviation = self._posterior(features)
        return mean * self._scale + self._mean, deviation * self._scale

    def _fit_kernel(self, x: Array, y: Array) -> Kernel:
        """Maximises the likelihood of the first n trials, with n growing by a quarter: cheap, and the same at a resume
        as without one."""
        count = _last_refit(min(len(y), MOST_TRIALS))
        if self._kernel is not None and count == self._fitted_on:
            return self._kernel
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
        return self._kernel


class _Posterior:
    """The process given x [N, features], y [N] (Rasmussen & Williams 2006, algorithm 2.1); scikit-learn's own costs
    three times as much a proposal, most of it checks and a likelihood that nobody asks for."""

    def __init__(self, kernel: Kernel, x: Array, y: Array) -> None:
        self._kernel, self._x, self._y = kernel, x, y
        self._inverse = solve_triangular(
            cholesky(kernel(x) + 1e-10 * np.eye(len(y)), lower=True, check_finite=False),
            np.eye(len(y)),
            lower=True,
            check_finite=False,
        )
        self._alpha = self._inverse.T @ (self._inverse @ y)

    def leave_one_out(self) -> Array:
        """The mean at each x without its y (eq. 5.12), [N]."""
        return np.asarray(self._y - self._alpha / (self._inverse**2).sum(axis=0))

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Mean and standard deviation at x [M, features], noise included, [M] each."""
        across = self._kernel(x, self._x)
        variance = self._kernel.diag(x) - ((self._inverse @ across.T) ** 2).sum(axis=0)
        return across @ self._alpha, np.sqrt(np.maximum(variance, 0.0))


def opinion_of(features: PlanFeatures, plans: Sequence[Levels], fid: Array, worth: Worth) -> Opinion:
    """What the search that scored `plans` [N] with `fid` [N] would say of any plan of the same encoding."""
    model = Surrogate()
    model.learn(features(plans), fid, worth)
    mean, scale = float(np.log(fid).mean()), float(np.log(fid).std()) or 1.0
    return lambda plans: (model.predict(features(plans))[0] - mean) / scale


def _last_refit(count: int) -> int:
    """The largest of 8, 10, 13, 17, ... that is not above `count`; `count` itself below 8."""
    at = 8
    while int(np.ceil(at * _REFIT)) <= count:
        at = int(np.ceil(at * _REFIT))
    return min(at, count)
