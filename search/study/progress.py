"""Measure how the Pareto front of a search grows: scores, reference point, hypervolume after each result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from stepfront.arrays import Array
from stepfront.search.algorithm.trials import TrialArchive, result_of
from stepfront.search.pareto import GrowingFront, hypervolume
from stepfront.search.study.trial_store import TrialStore

_FIRST = 4
"""Trials that fix the reference point: the uniform widths, by default."""


class ReferencePoint:
    """Fix the reference point of the hypervolume once, and keep it with the study.

    It is 1.1 x the worst FID of the first trials and 1.05 x full cost, known once all of the first trials are finished,
    in whichever order.  Of a user's own score it is a tenth beyond the worst value of the first trials.

    `initial` is the number of initial plans that the budget allows, `full_costs` the costs of full width by objective.
    """

    def __init__(self, store: TrialStore, archive: TrialArchive, initial: int, full_costs: Mapping[str, float]) -> None:
        self._store, self._archive, self._full_costs = store, archive, full_costs
        self._first = max(1, min(initial, _FIRST))
        self._value: list[float] | None = None

    def value(self) -> list[float] | None:
        """Return the reference point, [objectives]; None while the first trials run."""
        if self._value is None:
            stored = self._store.study_attribute("reference_point")
            if stored is None:
                if (stored := self._computed()) is None:
                    return None
                self._store.set_study_attribute("reference_point", stored)
            self._value = [float(value) for value in stored]
        return self._value

    def widen(self) -> None:
        """Raise the costs of a point that is known to those of a larger space, whose full width may take more steps."""
        if (known := self.value()) is None:
            return
        names = self._store.objectives
        wider = [max(value, 1.05 * self._full_costs.get(name, 0.0)) for name, value in zip(names, known, strict=True)]
        if wider != known:
            self._store.set_study_attribute("reference_point", wider)
            self._value = wider

    def _computed(self) -> list[float] | None:
        first = self._store.trials[: self._first]
        scored = [trial for trial in first if trial.state == TrialState.COMPLETE] or self._archive.complete[:1]
        if len(first) < self._first or not scored or not all(trial.state.is_finished() for trial in first):
            return None
        return [self._limit(name, i, scored) for i, name in enumerate(self._store.objectives)]

    def _limit(self, name: str, index: int, scored: Sequence[FrozenTrial]) -> float:
        """Return the coordinate of an objective; a study holds the negative of one whose higher values are better."""
        if name == "fid":
            return float(1.1 * max(result_of(trial)["fid"] for trial in scored))
        if name in self._full_costs:
            return 1.05 * self._full_costs[name]
        worst = max(float(trial.values[index]) for trial in scored)
        return worst + max(0.1 * abs(worst), 1e-9)


class FrontProgress:
    """Measure the complete trials of an archive, whose results only ever join at the end.

    A trial that breaks a constraint adds no hypervolume and is not on the front.
    """

    def __init__(self, archive: TrialArchive, reference: ReferencePoint, store: TrialStore) -> None:
        self._archive, self._reference = archive, reference
        self._objectives, self._constrained = len(store.objectives), bool(store.constraints)
        self._noise = 0.0
        self.reset()

    def expect_noise(self, spread: float) -> None:
        """Set the relative spread of FID differences below which growth counts as luck; 0, the default, is none."""
        self._noise = spread

    def reset(self) -> None:
        """Drop what was computed, after the archive's order has changed."""
        self._scores: Array | None = None
        self._front: GrowingFront | None = None

    @property
    def complete(self) -> list[FrozenTrial]:
        """The complete trials, in the order of their results."""
        return self._archive.complete

    @property
    def under_way(self) -> Mapping[int, FrozenTrial]:
        """The trials that were proposed and have no result, by number, in the order of their proposals."""
        return self._archive.under_way

    def reference_point(self) -> list[float] | None:
        """Return the reference point of the hypervolume, [objectives]; None while the first trials run."""
        return self._reference.value()

    def widen(self) -> None:
        """Measure in a larger space from now on, all results so far included."""
        self._reference.widen()
        self.reset()

    def scores(self) -> Array:
        """Return the objectives of the complete trials, [N, objectives]."""
        if self._scores is None or len(self._scores) < len(self.complete):
            self._scores = self._archive.scores.reshape(-1, self._objectives)
            self._scores.flags.writeable = False  # it is shared until the next result
        return self._scores

    def counted_scores(self) -> Array:
        """Return the objectives of the complete trials, [N, objectives], NaN for trials that break a constraint."""
        if not self._constrained:
            return self.scores()
        scores = self.scores().copy()
        scores[self._archive.violations > 0] = np.nan
        return scores

    def hypervolumes(self) -> Array:
        """Return the hypervolume after each complete trial, [N]; zeros without a reference point."""
        front = self._grown_front()
        return np.zeros(len(self.complete)) if front is None else np.array(front.volumes)

    def front_scores(self) -> Array:
        """Return the objectives of the front, [points, objectives]; empty without a reference point."""
        front = self._grown_front()
        return np.zeros((0, self._objectives)) if front is None else front.scores

    def stalled(self, trials: int) -> bool:
        """Return whether the hypervolume has not grown over so many complete trials by more than noise.

        Growth counts where the front, with every FID worse by the expected noise, is still larger than it was.
        """
        if len(self.complete) <= trials or self.reference_point() is None:
            return False
        history = self.hypervolumes()
        before = history[-1 - trials]
        if history[-1] <= before or not self._noise:
            return bool(history[-1] <= before)
        return self._volume_without_luck() <= before

    def _volume_without_luck(self) -> float:
        """Return the hypervolume of the front with every FID worse by the expected noise."""
        reference, front = self.reference_point(), self.front_scores().copy()
        assert reference is not None
        front[:, 0] += np.abs(front[:, 0]) * np.expm1(self._noise)
        return hypervolume(front, reference)

    def _grown_front(self) -> GrowingFront | None:
        """Return the front after the last result; None without a reference point."""
        if (reference := self.reference_point()) is None:
            return None
        self._front = self._front or GrowingFront(reference)
        if (known := len(self._front.sizes)) < len(self.complete):
            self._front.add(self.counted_scores()[known:])
        return self._front
