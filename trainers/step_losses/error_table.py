"""Hold the errors of single steps at each width, and read those of a plan's times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stepfront.arrays import Array
from stepfront.errors import InputError


@dataclass(frozen=True)
class StepErrors:
    """Mean distances of single steps from a teacher's trajectory, in the norm of the variance-preserving state.

    `times` [M] fall.  `start` [M] is the distance of the starting noise to the teacher's state at each time.
    `errors` [M, M + 1, widths] is that of one step from the teacher's state at a time to another, the last of which
    stands for the clean image; NaN where it was not measured.  Widths ascend.
    """

    times: tuple[float, ...]
    start: Array
    errors: Array

    @cached_property
    def _places(self) -> dict[float, int]:
        return {time: place for place, time in enumerate(self.times)}

    def between(self, times: Sequence[float]) -> tuple[Array, Array]:
        """Return the errors of starting at each of N times, [N], and of steps between them, [N, N + 1, widths].

        Raises InputError for a time at which nothing was measured.
        """
        missing = [time for time in times if time not in self._places]
        if missing:
            raise InputError(f"no step was measured at time {missing[0]:g}; the table is of another sampler")
        places = np.array([self._places[time] for time in times])
        ends = [*places, len(self.times)]
        return self.start[places], self.errors[places][:, ends]
