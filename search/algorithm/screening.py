"""Screen children: choose by a proxy the one that is worth an FID evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from optuna.trial import FrozenTrial

from stepfront.arrays import Array
from stepfront.search.algorithm.proxies import ModelProxy, Proxy, ProxyInputs, ProxyScore, find_proxy
from stepfront.search.algorithm.surrogate import LEAST_TRIALS, PlanFeatures
from stepfront.search.algorithm.transfer import LEAST_LEAD
from stepfront.search.algorithm.trials import is_fit, violation_of
from stepfront.search.config import ScreenSettings
from stepfront.search.genomes.candidates import Candidates
from stepfront.search.genomes.encodings import Encoding, Levels, Plans
from stepfront.search.pareto import domination_rank, expected_hypervolume_gains, front_indices, hypervolume_gains

FEWEST_TRIALS = 6
"""Complete trials below which no proxy is used while other plans are under way: each result that is waited for costs
as many plans without screening as there are workers.
"""

_AT_ONCE = 16
"""Plans whose gains are computed again together: a few cost hardly more than one."""

MOST_UNDER_WAY = 100
"""Most plans under way that a model counts as evaluated; all of them join the front."""


class SearchProgress(Protocol):
    """What a screening reads of the search so far."""

    @property
    def complete(self) -> Sequence[FrozenTrial]:
        """The complete trials, in the order of their results."""

    def scores(self) -> Array:
        """Return the objectives of the complete trials, [N, objectives], FID first."""

    @property
    def under_way(self) -> Mapping[int, FrozenTrial]:
        """The trials that were proposed and have no result, by number, in the order of their proposals."""

    def front_scores(self) -> Array:
        """Return the objectives of the Pareto front, [points, objectives]."""

    def reference_point(self) -> Sequence[float] | None:
        """Return the reference point of the hypervolume, [objectives]; None while it is unknown."""


class _Searched:
    """The complete trials of a search without fitted ones, whose score is that of a sampler that no child has.

    Each trial is read once: to read 5,000 of them takes longer than all the rest here.
    """

    def __init__(self, progress: SearchProgress) -> None:
        self.progress = progress
        self.trials: list[FrozenTrial] = []
        self.scores: Array = np.zeros((0, 0))
        self._fits: list[int] = []
        self._violations: list[float] = []
        self._own_front: Array | None = None

    def update(self) -> None:
        """Read the trials that have become complete."""
        every = self.progress.complete
        new = range(len(self.trials) + len(self._fits), len(every))
        if not new:
            return
        for i in new:
            if is_fit(every[i]):
                self._fits.append(i)
            else:
                self.trials.append(every[i])
                self._violations.append(violation_of(every[i]))
        self.scores = np.delete(self.progress.scores(), self._fits, axis=0)
        if self._fits:
            self._own_front = self.scores[front_indices(self.scores, np.array(self._violations))]

    def front(self) -> Array:
        """Return the Pareto front, [points, objectives]."""
        return self.progress.front_scores() if self._own_front is None else self._own_front


class _LazyGains:
    """Find the plan of largest gain where each gain was computed before and can only have fallen since.

    That is so while the plans of a packet are chosen: each that is believed takes from what is left to gain near it
    (rare exceptions are ignored).  So a plan is computed again only if its last gain is above all that are known: the
    accelerated greedy algorithm of Minoux (1978).
    """

    def __init__(self) -> None:
        self._last: dict[bytes | str, float] = {}

    def forget(self) -> None:
        """Count all plans as new."""
        self._last = {}

    def largest(self, plans: Plans, gains_of: Callable[[Plans], Array]) -> int:
        """Return the index of the plan of largest gain; `gains_of` returns the gains of some plans [N, units]: [N]."""
        keys = plans.genomes if isinstance(plans, Candidates) else [levels.tobytes() for levels in plans]
        gains, known = np.array([self._last.get(key, np.inf) for key in keys]), np.zeros(len(keys), dtype=bool)
        while not known[chosen := int(np.argmax(gains))]:
            count = max(_AT_ONCE, np.count_nonzero(np.isinf(gains)))
            some = np.argsort(np.where(known, np.inf, -gains), kind="stable")[: min(count, np.count_nonzero(~known))]
            these = plans.take(some) if isinstance(plans, Candidates) else np.asarray(plans)[some]
            gains[some], known[some] = gains_of(these), True
        self._last.update(zip(keys, gains.tolist(), strict=True))
        return chosen


class Screening:
    """Choose among children by proxies, as long as the rank correlation of each is at least `least_tau`.

    There is one of FID, and one per score of a user's own that is an objective: the last of them.  `costs_of` returns
    the objectives between these, which are known, of plans [N, units], an array or `Candidates`: [N, costs].
    `levels_of` returns the levels of a trial.

    Plans under way count as evaluated with what their proxies expect of them: they join the front that gains are
    computed against, and the model is conditioned on them, so that it is as sure near them as near a result (the
    kriging believer of Ginsbourger et al. 2010).

    `bounds` [objectives, 2] are the intervals that constraints leave the objectives; None where there is no constraint.
    A plan that is expected outside joins no front, and gains nothing.
    """

    def __init__(
        self,
        proxy: Proxy,
        costs_of: Callable[[Plans], Array],
        levels_of: Callable[[FrozenTrial], Levels],
        least_tau: float,
        others: Sequence[Proxy] = (),
        acquisition: str = "optimistic",
        bounds: Array | None = None,
    ) -> None:
        self._bounds = bounds
        self._proxies, self._costs_of, self._least_tau = (proxy, *others), costs_of, least_tau
        self._expected = acquisition == "expected"
        self._levels_of = levels_of
        self._learnt = 0, False
        self._believed: dict[int, Array] = {}
        self._levels: dict[int, Levels] = {}
        self._joined: tuple[Array | None, Array] = None, np.zeros((0, 0))
        self._known: _Searched | None = None
        self._gains = _LazyGains()

    def watch(self, progress: SearchProgress) -> None:
        """Set the search whose trials decide how far the proxy is trusted; it is made after the screening."""
        self._known = _Searched(progress)

    def __call__(self, children: Plans) -> int:
        """Return the index of the child to evaluate; 0, the first, while the proxy is not trusted or can't score it."""
        if (known := self._searched(FEWEST_TRIALS if self._under_way else LEAST_TRIALS)) is None:
            return 0
        complete, scores, front, reference = known
        if not self._is_trusted(complete, scores):
            return 0
        front = self._with_under_way(front)
        if (model := self._expecting(front)) is not None:
            return self._most_expected(model, children, front, reference)
        costs = self._costs_of(_together(children))
        plans = list(np.asarray(children))  # rows of their own: a user's proxy may write into them
        expected = [proxy.predict(plans) for proxy in self._proxies]
        if np.isnan([scores[0] for scores in expected]).any():
            return 0  # plans that a proxy can't score keep the share that variation gives them
        return best_child(expected[0], np.column_stack([costs, *expected[1:]]), front, reference, self._bounds)

    @property
    def has_earlier(self) -> bool:
        """Whether the model knows what earlier searches learnt, so that `lead` may choose."""
        return isinstance(self._proxies[0], ModelProxy) and self._proxies[0].has_earlier

    def lead(self, plans: Plans) -> int | None:
        """Return the index of the plan with the largest expected gain where earlier searches are trusted; else None.

        They are as long as models with their priors have more weight than the one without.
        """
        model = self._proxies[0]
        if not isinstance(model, ModelProxy) or not model.has_earlier or (known := self._searched(LEAST_LEAD)) is None:
            return None
        complete, scores, front, reference = known
        if scores.shape[1] != 2:
            return None
        self._is_trusted(complete, scores)
        if model.trust[0] > 0.5:
            return None
        front = self._with_under_way(front)
        return self._most_expected(model, plans, front, reference)

    def _most_expected(self, model: ModelProxy, plans: Plans, front: Array, reference: Sequence[float]) -> int:
        """Return the index of the plan with the largest expected gain.

        Where no plan keeps the constraints and no gain can be told from 0, that of the nearest to them by its mean.
        """
        within = (-np.inf, np.inf) if self._bounds is None else self._bounds[0]

        def expected(plans: Plans) -> tuple[Array, Array]:
            costs, (mean, deviation) = self._costs_of(_together(plans)), model.distribution(plans)
            gains = expected_hypervolume_gains(mean, deviation, costs[:, 0], front, reference, within)
            return gains, np.column_stack([np.exp(mean), costs])

        if self._under_way and len(front):
            return self._gains.largest(plans, lambda some: expected(some)[0])
        return _most_gain(*expected(plans), front, self._bounds)

    def _searched(self, least: int) -> tuple[Sequence[FrozenTrial], Array, Array, Sequence[float]] | None:
        """Return the complete trials [N] without fitted ones, their scores, their front and the reference point.

        None while there are fewer than `least` of them, or no reference point.  All that proxies learn comes from here:
        they count the trials that they know.
        """
        known = self._known
        if known is None or (reference := known.progress.reference_point()) is None:
            return None
        known.update()
        return None if len(known.trials) < least else (known.trials, known.scores, known.front(), reference)

    def _is_trusted(self, complete: Sequence[FrozenTrial], scores: Array) -> bool:
        """Let the proxies learn from trials [N] and their scores [N, objectives]; return whether all are trusted."""
        given_up = self._believed.keys() - self._under_way.keys()
        if self._learnt[0] != len(complete) or given_up:
            self._believed = {}
            self._gains.forget()
            columns = [0, *range(scores.shape[1] - len(self._proxies) + 1, scores.shape[1])]
            learnt = (
                proxy.learn(complete, np.roll(scores, -column, axis=1))
                for proxy, column in zip(self._proxies, columns, strict=True)
            )
            # NaN, a correlation that is undefined, is not trusted either.
            self._learnt = len(complete), all(tau >= self._least_tau for tau in learnt)
        return self._learnt[1]

    @property
    def _under_way(self) -> Mapping[int, FrozenTrial]:
        return {} if self._known is None else self._known.progress.under_way

    def _expecting(self, front: Array) -> ModelProxy | None:
        """Return the model over whose distribution gains are expected; None where they are at what proxies predict."""
        model = self._proxies[0]
        return model if self._expected and isinstance(model, ModelProxy) and front.shape[1] == 2 else None

    def _with_under_way(self, front: Array) -> Array:
        """Return a front [points, objectives] together with what is expected of the plans under way.

        Proxies must have learnt.  What is expected of a plan stays until they learn again.
        """
        under_way = self._under_way
        new = [number for number in under_way if number not in self._believed]
        if new:
            known = self._levels  # read once per plan, which stays under way over many results
            self._levels = {n: known[n] if n in known else self._levels_of(trial) for n, trial in under_way.items()}
            plans = [self._levels[number] for number in new]
            expected = self._expected_scores(plans, self._expecting(front))
            for proxy in self._proxies:
                if isinstance(proxy, ModelProxy) and len(self._believed) < MOST_UNDER_WAY:
                    proxy.believe(plans[: MOST_UNDER_WAY - len(self._believed)])
            self._believed |= dict(zip(new, expected, strict=True))
        if not self._believed:
            return front
        if new or self._joined[0] is not front:
            self._joined = front, self._joined_front(front)
        return self._joined[1]

    def _joined_front(self, front: Array) -> Array:
        """Return the front of a front and what is expected of plans under way, those that break no constraint."""
        believed = np.array(list(self._believed.values()))
        believed = believed[np.isfinite(believed).all(axis=1)]
        if self._bounds is not None:
            believed = believed[_broken(believed, self._bounds) == 0]
        points = np.vstack([front, believed])
        return points[domination_rank(points, enough=1) == 0]

    def _expected_scores(self, plans: Sequence[Levels], model: ModelProxy | None) -> Array:
        """Return the objectives that are expected of plans, [N, objectives]; NaN where a proxy can't score one."""
        costs = self._costs_of(_together(plans))
        if model is not None:
            return np.column_stack([np.exp(model.mean(plans)), costs])
        fid, *others = (proxy.predict(plans) for proxy in self._proxies)
        return np.column_stack([fid, costs, *others])


def make_screening(
    screen: ScreenSettings,
    encoding: Encoding,
    features: Callable[[], PlanFeatures],
    costs_of: Callable[[Plans], Array],
    paired: Callable[[], ProxyScore] | None = None,
    scores: int = 0,
    bounds: Array | None = None,
) -> Screening | None:
    """Return the screening of the settings; None where every child is evaluated (see `ProxyInputs`).

    `scores` is the number of a user's own scores among the objectives, `bounds` what constraints leave these.
    """
    if screen.proxy == "none":
        return None
    make, inputs = find_proxy(screen.proxy), ProxyInputs(encoding, features, paired)
    made = [make(replace(inputs, of_fid=not i)) for i in range(1 + scores)]
    proxies = [proxy for proxy in made if proxy is not None]
    if len(proxies) < len(made):
        return None
    given = (inputs.levels_of, screen.least_tau, proxies[1:], screen.acquisition, bounds)
    return Screening(proxies[0], costs_of, *given)


def best_child(
    expected: Array, costs: Array, front: Array, reference: Sequence[float], bounds: Array | None = None
) -> int:
    """Return the index of the child whose expected FID adds most hypervolume; 0 where none adds any.

    `expected` [children], `costs` [children, objectives - 1], `front` [points, objectives] with FID first.  A child
    that is expected outside `bounds` [objectives, 2] adds none; while the front is empty and none adds any, the nearest
    to them is chosen.
    """
    points = np.column_stack([expected, costs])
    gains = hypervolume_gains(points, front, reference)
    if bounds is not None:
        gains = np.where(_broken(points, bounds) == 0, gains, 0.0)
    return _most_gain(gains, points, front, bounds)


def _together(plans: Plans) -> Plans:
    """Return plans as one array, or as candidates, whose costs are computed by change."""
    return plans if isinstance(plans, Candidates) else np.asarray(plans)


def _most_gain(gains: Array, points: Array, front: Array, bounds: Array | None) -> int:
    """Return the index of the largest gain [N]; without a front and any gain, that of the point nearest to the bounds.

    `points` [N, objectives] are what is expected.  An expected gain far outside the bounds is a subnormal number or
    0, whose order is that of rounding.
    """
    if bounds is not None and not len(front) and not (gains >= np.finfo(np.float64).tiny).any():
        return int(np.argmin(np.nan_to_num(_broken(points, bounds), nan=np.inf)))
    return int(np.argmax(gains))


def _broken(points: Array, bounds: Array) -> Array:
    """Return by how much points [N, objectives] are outside of bounds [objectives, 2], summed, [N]."""
    beyond: Array = np.maximum(0.0, np.maximum(points - bounds[:, 1], bounds[:, 0] - points)).sum(axis=1)
    return beyond
