"""Track the trials under way: those that workers evaluate, and interrupted ones that wait for another attempt."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from optuna.trial import FrozenTrial

ATTEMPT = "attempt"
"""The trial attribute that counts attempts, from 1; the first is not stored."""


def attempt_of(trial: FrozenTrial) -> int:
    """Return the number of a trial's current attempt, from 1."""
    return int(trial.user_attrs.get(ATTEMPT, 1))


class TrialQueue:
    """Hand out interrupted trials first come, first served, and know which trials are in flight."""

    def __init__(self, interrupted: Iterable[FrozenTrial] = ()) -> None:
        self._interrupted = deque(interrupted)
        self._in_flight: set[int] = set()

    @property
    def in_flight(self) -> int:
        """Number of trials that were handed out and are not finished."""
        return len(self._in_flight)

    @property
    def interrupted(self) -> int:
        """Number of trials that wait for another attempt."""
        return len(self._interrupted)

    def next_interrupted(self) -> FrozenTrial | None:
        """Remove and return the trial that has waited longest; None when none waits."""
        return self._interrupted.popleft() if self._interrupted else None

    def begin(self, trial: FrozenTrial) -> None:
        """Count a trial as in flight."""
        self._in_flight.add(trial.number)

    def end(self, trial: FrozenTrial) -> None:
        """Count a trial as in flight no more."""
        self._in_flight.discard(trial.number)

    def put_back(self, trial: FrozenTrial) -> None:
        """Let an interrupted trial wait for another attempt, behind all others."""
        self._interrupted.append(trial)
