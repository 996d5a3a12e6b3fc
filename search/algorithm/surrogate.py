"""Predict the FID of plans from the trials of the search itself.

The model is a Gaussian process on log FID, over the plan's levels and its summed gap.  Its kernel has a linear part,
what a stage's width is worth by itself, and a squared exponential part, how stages depend on each other.
The gap carries what is known before the first trial; the levels learn where FID disagrees with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.spatial.distance import cdist, pdist, squareform

from stepfront.arrays import Array
from stepfront.search.genomes.candidates import MANY_UNITS, ByChange, Candidates
from stepfront.search.genomes.encodings import SKIP_LEVEL, Encoding, EvenStages, Levels, Plans

Worth = Callable[[int], NDArray[np.int64]]
"""Return ranks of all trials [N] that tell the given number apart; the trials of smallest rank are learned."""

MOST_STRETCHES = 20
"""Most level features of a plan; more units than this are averaged over so many stretches."""

MOST_TRIALS = 150
"""Most trials to fit the model on; each proposal costs the cube of this."""

LEAST_TRIALS = 12
"""Complete trials below which a rank correlation is not trusted."""

_REFIT = 1.25  # the kernel is fitted again when the number of trials has grown by this factor

EarlierModel = Callable[[Sequence[Levels]], Array]
"""Predict the log FID of plans from what an earlier search learnt, [N]; an offset and a factor are not meant."""


@dataclass(frozen=True)
class PlanFeatures:
    """Compute the model's features of plans.

    `gap` [steps, widths] is the gap table; each model of `earlier` searches adds one feature, its prediction.  `coding`
    is how levels become features: `level`, one per unit, or `thermometer`, one per unit and level that is reached, so
    that the linear part of the model learns what each width is worth.
    """

    encoding: Encoding
    gap: Array
    earlier: tuple[EarlierModel, ...] = ()
    coding: str = "level"

    def __call__(self, plans: Plans) -> Array:
        """Return the features [N, features] of N plans' levels.

        They are the mean level of each stretch, half the log gap, and the predictions of earlier searches.  With skip,
        the share of skipped steps in each stretch comes second (of the complete plan, where steps are even).  Solvers
        and grids that plans choose from have one feature each, 1 for the plan's own.  In a space of variants, each mark
        has its share in each stretch: levels are ordered by cost, which does not tell a mark from a narrower width.
        """
        if isinstance(plans, Candidates) and self._sums_of is not None and len(plans.changed):
            sums = self._sums_of(plans)
            return np.column_stack([sums[:, :-1], self._of_gap(sums[:, -1])])
        e, units = self.encoding.of_widths, self.encoding.units
        every = np.asarray(plans).reshape(len(plans), units + len(self.encoding.choices))
        levels, genes = every[:, :units], every[:, units:]
        share = (levels != SKIP_LEVEL).mean(axis=1, keepdims=True)
        if isinstance(e, EvenStages):
            levels = _filled(levels)
        taken, per_unit = levels != SKIP_LEVEL, self._unit_gap
        at = levels + per_unit.shape[1] * np.arange(e.units)  # in the table as one row, which is faster to read
        gap = np.where(taken, per_unit.ravel().take(at), 0.0).sum(axis=1)
        columns = [_stretches(values) for values in self._coded(np.where(taken, levels, 0), taken)]
        if isinstance(e, EvenStages):
            columns.append(-np.log(share))
        elif e.skip:
            columns.append(_stretches(1.0 - taken))
        columns += [_stretches(np.where(taken, marks[levels], 0.0)) for marks in self._marks]
        chosen = [genes[:, [i]] == np.arange(count) for i, count in enumerate(self.encoding.choices) if count > 1]
        columns += [one.astype(np.float64) for one in chosen]
        return np.column_stack([*columns, self._of_gap(gap), *(model(list(plans)) for model in self.earlier)])

    def _of_gap(self, gap: Array) -> Array:
        """Return half the logarithm of summed gaps [N], above a floor."""
        return np.asarray(0.5 * np.log(np.maximum(gap, 0.0) + self._floor))

    @cached_property
    def _floor(self) -> float:
        # Of widths the narrowest has the largest gap; the cheapest variant may have none.
        table = self._unit_gap
        return max(0.01 * float((table.max(axis=1) if self.encoding.marks else table[:, 0]).sum()), 1e-12)

    @cached_property
    def _sums_of(self) -> ByChange | None:
        """The features of candidates with the summed gap as the last one; None where all at once takes less time."""
        units, gap = self.encoding.units, self._unit_gap
        if units < max(MANY_UNITS, MOST_STRETCHES) or not self.encoding.has_free_units or self.earlier:
            return None
        edges = _edges(units)
        of, lengths = np.repeat(np.arange(MOST_STRETCHES), np.diff(edges)), np.diff(edges)
        each = np.arange(self.encoding.highest + 1)[:, None]
        codes = np.column_stack([code[:, 0] for code in self._coded(each, each >= 0)])

        def sums(plans: Levels) -> Array:
            coded = [_stretches(values) for values in self._coded(plans, plans >= 0)]
            return np.column_stack([*coded, gap[np.arange(units), plans].sum(axis=1)])

        def differences(places: Levels, before: Levels, after: Levels) -> Array:
            found = np.zeros((len(places), codes.shape[1] * MOST_STRETCHES + 1))
            columns = of[places][:, None] + MOST_STRETCHES * np.arange(codes.shape[1])
            changed = (codes[after] - codes[before]) / lengths[of[places]][:, None]
            np.put_along_axis(found, columns, changed, axis=1)
            found[:, -1] = gap[places, after] - gap[places, before]
            return found

        return ByChange(sums, differences)

    def _coded(self, levels: Levels, taken: NDArray[np.bool_]) -> list[Array]:
        """Return the columns [N, units] that stand for the levels [N, units] of units that are `taken`."""
        highest = max(1, self.encoding.highest)
        if self.coding == "thermometer":
            reached = (taken & (levels >= level) for level in range(1, highest + 1))
            return [np.where(one, 1 / np.sqrt(highest), 0.0) for one in reached]
        return [levels / highest]

    @cached_property
    def _marks(self) -> list[Array]:
        """Return for each mark that occurs which levels have it, [levels]."""
        variants = self.encoding.variants
        marks = [np.array([v.reuse for v in variants]), np.array([not v.guided for v in variants])]
        depths = sorted({v.depth for v in variants if v.depth is not None})
        marks += [np.array([v.depth == depth for v in variants]) for depth in depths]
        scales = sorted({v.scale for v in variants if v.scale is not None})
        marks += [np.array([v.scale == scale for v in variants]) for scale in scales]
        return [mark.astype(np.float64) for mark in marks if mark.any()]

    @cached_property
    def _unit_gap(self) -> Array:
        return np.add.reduceat(self.gap, np.cumsum(self.encoding.lengths) - self.encoding.lengths, axis=0)


def _filled(levels: Levels) -> Levels:
    """Return levels [N, units] with each skipped unit set to the level before it, whose step spans it."""
    before = np.maximum.accumulate(np.where(levels != SKIP_LEVEL, np.arange(levels.shape[1]), -1), axis=1)
    return np.take_along_axis(levels, np.where(before < 0, before[:, -1:], before), axis=1)


def _stretches(values: Array) -> Array:
    units = values.shape[1]
    if units <= MOST_STRETCHES:
        return values
    edges = _edges(units)
    return np.add.reduceat(values, edges[:-1], axis=1) / np.diff(edges)


def _edges(units: int) -> NDArray[np.int64]:
    """Return where the stretches of so many units begin, and the end, [MOST_STRETCHES + 1]."""
    return np.arange(MOST_STRETCHES + 1) * units // MOST_STRETCHES


class Surrogate:
    """Predict FID: `learn` all trials, then `predict`.

    Which trials the kernel is fitted on depends on their order alone, so a resumed search continues with the same
    predictions.  With `logarithm` it models log FID; without it, a score that may be negative, as it is: read FID for
    log FID then.
    """

    def __init__(self, logarithm: bool = True) -> None:
        self._logarithm = logarithm
        self._kernel: Kernel | None = None
        self._fitted_on = 0
        self._posterior: _Posterior | None = None
        self._mean, self._scale = 0.0, 1.0

    def learn(self, features: Array, fid: Array, worth: Worth) -> Array:
        """Fit the model on all trials; return its leave-one-out prediction of each trial's log FID, [N].

        `features` [N, features] and `fid` [N] are in the order of the results.  Of more than `MOST_TRIALS`, only those
        with the smallest `worth` (their domination rank) are learned; the prediction of the others is NaN.
        """
        x, y = features, np.log(np.maximum(fid, 1e-9)) if self._logarithm else fid
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
        """Return mean and standard deviation of log FID, [N] each; `learn` must have been called."""
        assert self._posterior is not None, "call learn before predict"
        mean, deviation = self._posterior(features)
        return mean * self._scale + self._mean, deviation * self._scale

    def mean(self, features: Array) -> Array:
        """Return the mean of log FID, [N], which plans that are believed leave as it is."""
        assert self._posterior is not None, "call learn before mean"
        return self._posterior.mean(features) * self._scale + self._mean

    def believe(self, features: Array) -> None:
        """Count plans [N, features] as evaluated with what the model expects of them, until `learn` is called again."""
        assert self._posterior is not None, "call learn before believe"
        self._posterior.believe(features)

    def _fit_kernel(self, x: Array, y: Array) -> Kernel:
        """Return the kernel that maximises the likelihood of the first n trials.

        n grows by a quarter at a time: cheap, and the same with and without a resume.
        """
        count = kernel_trials(len(y))
        if self._kernel is not None and count == self._fitted_on:
            return self._kernel
        first = y[:count]
        self._kernel = Kernel.fitted(x[:count], (first - first.mean()) / (first.std() or 1.0))
        self._fitted_on = count
        return self._kernel


@dataclass(frozen=True)
class Kernel:
    """height * exp(-|x - y|^2 / (2 length^2)) + slope * (x . y + offset^2) + noise.

    Values, gradients and fitted parameters are those of scikit-learn's ConstantKernel, RBF, DotProduct and WhiteKernel
    to the last bit.  Those take three times as long, mostly to copy and to check parameters.
    """

    height: float = 1.0
    length: float = 1.0
    slope: float = 1.0
    offset: float = 1.0
    noise: float = 0.05

    @classmethod
    def fitted(cls, x: Array, y: Array) -> Kernel:
        """Return the kernel of greatest likelihood for y [N] at x [N, features] (ibid., eqs. 5.8 and 5.9)."""
        start, bounds = (
            np.log(astuple(cls())),
            np.log([(1e-3, 1e3), (0.1, 30.0), (1e-3, 1e3), (1e-5, 1e5), (1e-4, 1.0)]),
        )

        def loss(logs: Array) -> tuple[float, Array]:
            return cls(*np.exp(logs).tolist())._loss(x, y)

        return cls(*np.exp(minimize(loss, start, method="L-BFGS-B", jac=True, bounds=bounds).x).tolist())

    def __call__(self, x: Array, y: Array) -> Array:
        """Return the covariances [N, M] of the process at x [N, features] with those at y [M, features]."""
        near = np.exp(-0.5 * cdist(x / self.length, y / self.length, metric="sqeuclidean"))
        return np.asarray(self.height * near + self.slope * (np.inner(x, y) + self.offset**2))

    def among(self, x: Array) -> Array:
        """Return the covariances [N, N] of scores at x [N, features], noise included."""
        near, _ = self._near(x)
        return self.height * near + self.slope * self._linear(x) + self.noise * np.eye(len(x))

    def diag(self, x: Array) -> Array:
        """Return the variance of scores at x [N, features], noise included, [N]."""
        return self.height + self.slope * (np.einsum("ij,ij->i", x, x) + self.offset**2) + self.noise

    def _near(self, x: Array) -> tuple[Array, Array]:
        """Return the squared exponential of x with itself, and the scaled squared distances, [N, N] each."""
        distances = pdist(x / self.length, metric="sqeuclidean")
        near = squareform(np.exp(-0.5 * distances))
        np.fill_diagonal(near, 1)
        return near, squareform(distances)

    def _linear(self, x: Array) -> Array:
        return np.asarray(np.inner(x, x) + self.offset**2)

    def _loss(self, x: Array, y: Array) -> tuple[float, Array]:
        """Return the negative log likelihood of y, and its gradient by the logarithms of the parameters, [5]."""
        (near, distances), linear, identity = self._near(x), self._linear(x), np.eye(len(x))
        parts = self.height * near, self.slope * linear, self.noise * identity
        covariances = parts[0] + parts[1] + parts[2]
        covariances[np.diag_indices_from(covariances)] += 1e-10
        try:
            factor = cholesky(covariances, lower=True, check_finite=False)
        except LinAlgError:
            return np.inf, np.zeros(5)
        weights = cho_solve((factor, True), y[:, None], check_finite=False)
        likelihood = -0.5 * np.einsum("ik,ik->k", y[:, None], weights)
        likelihood -= np.log(np.diag(factor)).sum()
        likelihood -= len(x) / 2 * np.log(2 * np.pi)
        gradients = np.empty((*covariances.shape, 5))
        gradients[..., 0], gradients[..., 1] = parts[0], near * distances * self.height
        gradients[..., 2], gradients[..., 3] = parts[1], 2 * self.offset**2 * self.slope
        gradients[..., 4] = parts[2]
        inner = np.einsum("ik,jk->ijk", weights, weights)
        inner -= cho_solve((factor, True), identity, check_finite=False)[..., None]
        gradient = 0.5 * np.einsum("ijl,jik->kl", inner, gradients)
        return -float(likelihood[0]), -gradient[:, 0]


class _Posterior:
    """Condition the process on x [N, features] and y [N] (Rasmussen & Williams 2006, algorithm 2.1).

    `believe` conditions it on its own mean at further x.
    """

    def __init__(self, kernel: Kernel, x: Array, y: Array) -> None:
        self._kernel, self._x, self._y = kernel, x, y
        self._inverse = solve_triangular(
            cholesky(kernel.among(x) + 1e-10 * np.eye(len(y)), lower=True, check_finite=False),
            np.eye(len(y)),
            lower=True,
            check_finite=False,
        )
        self._alpha = self._inverse.T @ (self._inverse @ y)
        self._believed = x[:0]

    def believe(self, x: Array) -> None:
        """Condition the process on its own mean at x [M, features] as well.

        Means stay as they are, so only the inverse of the Cholesky factor grows, by M rows: the block form of
        Rasmussen & Williams 2006, eq. A.12, for a triangular matrix.
        """
        across = self._kernel(self._points, x)
        below = self._inverse @ across
        own = cholesky(self._kernel.among(x) + 1e-10 * np.eye(len(x)) - below.T @ below, lower=True, check_finite=False)
        corner = solve_triangular(own, np.eye(len(x)), lower=True, check_finite=False)
        known = len(self._inverse)
        grown = np.zeros((known + len(x), known + len(x)))
        grown[:known, :known] = self._inverse
        grown[known:, :known] = -corner @ (below.T @ self._inverse)
        grown[known:, known:] = corner
        self._inverse, self._believed = grown, np.vstack([self._believed, x])

    @property
    def _points(self) -> Array:
        return np.vstack([self._x, self._believed]) if len(self._believed) else self._x

    def leave_one_out(self) -> Array:
        """Return the mean at each x without its y (eq. 5.12), [N]."""
        return np.asarray(self._y - self._alpha / (self._inverse**2).sum(axis=0))

    def mean(self, x: Array) -> Array:
        """Return the mean at x [M, features], [M]."""
        return np.asarray(self._kernel(x, self._x) @ self._alpha)

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation at x [M, features], noise included, [M] each."""
        across = self._kernel(x, self._points)
        variance = self._kernel.diag(x) - ((self._inverse @ across.T) ** 2).sum(axis=0)
        return across[:, : len(self._x)] @ self._alpha, np.sqrt(np.maximum(variance, 0.0))


def kernel_trials(count: int) -> int:
    """Return how many of the first of `count` trials the kernel is fitted on."""
    return last_refit(min(count, MOST_TRIALS))


def last_refit(count: int) -> int:
    """Return the largest of 8, 10, 13, 17, ... that is not above `count`; `count` itself below 8."""
    at = 8
    while int(np.ceil(at * _REFIT)) <= count:
        at = int(np.ceil(at * _REFIT))
    return min(at, count)
