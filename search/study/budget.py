"""Measure the time that a search has run, and compare what it has used with the limits at which it ends."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from stepfront.search.algorithm.fit_rounds import FitRounds, learning_tflops
from stepfront.search.algorithm.trials import RESULT, result_of
from stepfront.search.study.optuna_storage import read_study
from stepfront.search.study.progress import FrontProgress


@dataclass(frozen=True)
class Limits:
    """When a search ends; None is no limit.

    `tflops` counts the network FLOPs of evaluations and learning in 1e12, `patience` generations without a larger
    hypervolume.
    """

    trials: int | None = None
    seconds: float | None = None
    tflops: float | None = None
    patience: int | None = None


@dataclass(frozen=True)
class Usage:
    """What a search has used of its budget; `tflops` in 1e12 network FLOPs."""

    trials: int
    seconds: float
    tflops: float


class SearchClock:
    """Count seconds from where the session before stopped, `before`."""

    def __init__(self, before: float = 0.0) -> None:
        self._begin = time.monotonic()
        self.continue_from(before)

    def continue_from(self, seconds: float) -> None:
        """Set the time of all earlier sessions, which is also the last one stamped."""
        self._before = self._last = seconds

    @property
    def elapsed(self) -> float:
        """Seconds that the search has run, over all its sessions."""
        return self._before + time.monotonic() - self._begin

    def stamp(self) -> float:
        """Return the elapsed seconds, to the millisecond and later than at any call before.

        Stamps order the results of a search, also across a resume.
        """
        self._last = max(round(self.elapsed, 3), round(self._last + 1e-3, 3))
        return self._last


class Budget:
    """Decide whether a running search ends.  `generation` is the number of trials per generation."""

    def __init__(
        self,
        limits: Limits,
        trials: Sequence[FrozenTrial],
        clock: SearchClock,
        progress: FrontProgress,
        generation: int,
        fit_rounds: FitRounds,
    ) -> None:
        self.limits = limits
        self._trials, self._clock, self._progress, self._generation = trials, clock, progress, generation
        self._fit_rounds = fit_rounds

    def is_exhausted(self, finished: int) -> bool:
        """Return whether a limit is reached; `finished` counts complete and failed trials."""
        limits = self.limits
        if limits.trials is not None and finished >= limits.trials:
            return True
        if limits.seconds is not None and self._clock.elapsed >= limits.seconds:
            return True
        if limits.tflops is not None and self.network_tflops() >= limits.tflops:
            return True
        return limits.patience is not None and self._progress.stalled(limits.patience * self._generation)

    def remaining_trials(self, begun: int) -> int | None:
        """Return how many more trials may begin; None without such a limit."""
        return None if self.limits.trials is None else max(0, self.limits.trials - begun)

    def network_tflops(self) -> float:
        """Return the network FLOPs of all complete trials, and of learning within the search, in 1e12."""
        complete = (result_of(trial) for trial in self._trials if trial.state == TrialState.COMPLETE)
        return _tflops(complete) + self._fit_rounds.tflops


def usage_of_study(url: str | None, directory: Path) -> Usage:
    """Return what the study in `directory` has used.  Raises InputError when there is none."""
    attributes, trials = read_study(url, directory)
    results = [trial.user_attrs[RESULT] for trial in trials if RESULT in trial.user_attrs]
    return Usage(
        trials=sum(trial.state.is_finished() for trial in trials),
        seconds=max((result.get("elapsed", 0.0) for result in results), default=0.0),
        tflops=_tflops(result for result in results if not result.get("error")) + learning_tflops(attributes),
    )


def _tflops(results: Iterable[Mapping[str, Any]]) -> float:
    return sum(result["gflops"] * result["images"] for result in results) / 1000
