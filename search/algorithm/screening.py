"""Screen children: choose by a proxy the one that is worth an FID evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from optuna.trial import FrozenTrial

from stepfront.arrays import Array
from stepfront.search.algorithm.encodings import Encoding, Levels
from stepfront.search.algorithm.proxies import Proxy, ProxyInputs, ProxyScore, find_proxy
from stepfront.search.algorithm.surrogate import LEAST_TRIALS, PlanFeatures
from stepfront.search.config import ScreenSettings
from stepfront.search.pareto import hypervolume_gains


class SearchProgress(Protocol):
    """What a screening reads of the search so far."""

    @property
    def complete(self) -> Sequence[FrozenTrial]:
        """The complete trials, in the order of their results."""

    def scores(self) -> Array:
        """Return the objectives of the complete trials, [N, objectives], FID first."""

    def front_scores(self) -> Array:
        """Return the objectives of the Pareto front, [points, objectives]."""

    def reference_point(self) -> Sequence[float] | None:
        """Return the reference point of the hypervolume, [objectives]; None while it is unknown."""


class Screening:
    """Choose among children by a proxy, as long as the proxy's rank correlation with FID is at least `least_tau`.

    `costs_of` returns a child's objectives other than FID.
    """

    def __init__(self, proxy: Proxy, costs_of: Callable[[Levels], list[float]], least_tau: float) -> None:
        self._proxy, self._costs_of, self._least_tau = proxy, costs_of, least_tau
        self._progress: SearchProgress | None = None

    def watch(self, progress: SearchProgress) -> None:
        """Set the search whose trials decide how far the proxy is trusted; it is made after the screening."""
        self._progress = progress

    def __call__(self, children: Sequence[Levels]) -> int:
        """Return the index of the child to evaluate; 0, the first, while the proxy is not trusted."""
        if self._progress is None or (reference := self._progress.reference_point()) is None:
            return 0
        complete = self._progress.complete
        if len(complete) < LEAST_TRIALS:
            return 0
        # NaN, a correlation that is undefined, is not trusted either.
        if not self._proxy.learn(complete, self._progress.scores()) >= self._least_tau:
            return 0
        expected = self._proxy.predict(children)
        costs = np.array([self._costs_of(levels) for levels in children])
        return best_child(expected, costs, self._progress.front_scores(), reference)


def make_screening(
    screen: ScreenSettings,
    encoding: Encoding,
    features: Callable[[], PlanFeatures],
    costs_of: Callable[[Levels], list[float]],
    paired: Callable[[], ProxyScore] | None = None,
) -> Screening | None:
    """Return the screening of the settings; None where every child is evaluated (see `ProxyInputs`)."""
    proxy = None if screen.proxy == "none" else find_proxy(screen.proxy)(ProxyInputs(encoding, features, paired))
    return None if proxy is None else Screening(proxy, costs_of, screen.least_tau)


def best_child(expected: Array, costs: Array, front: Array, reference: Sequence[float]) -> int:
    """Return the index of the child whose expected FID adds most hypervolume; 0 where none adds any.

    `expected` [children], `costs` [children, objectives - 1], `front` [points, objectives] with FID first.
    """
    return int(np.argmax(hypervolume_gains(np.column_stack([expected, costs]), front, reference)))
