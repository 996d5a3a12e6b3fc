"""Find plans of least summed step error at each cost, by dynamic programming over steps and widths.

The error of a step is its distance from a teacher's trajectory (trainers/step_losses), so the sum over a plan's steps
stands for its quality.  Costs are whole numbers of a `SHARES`-th of a step at full width:

    V[i, b] = min over j > i and w of  c_ij^w + V[j, b - cost_w]

With `skip: even` the times of a plan are the grid of its number of steps, so each number has a programme of its own,
over widths alone.  With `skip: true` any unit may be left out, and the programme chooses units as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepfront.arrays import Array
from stepfront.search.genomes.encodings import SKIP_LEVEL, Encoding, EvenStages, Levels

SHARES = 64
"""Costs are rounded to this part of a step at full width."""

MOST_TIMES = 256
"""Times of all grids together at which steps are measured, at most; of more numbers of steps, some are left out."""

TimesOf = Callable[[int], tuple[float, ...]]
"""Return the times of a sampler of so many steps."""

ErrorsOf = Callable[[int], tuple[Array, Array]]
"""Return the errors of a sampler of N steps: of starting at each time [N], and of steps between them.

The latter are [N, N + 1, widths]; the last time stands for the clean image.
"""


def not_measured(steps: int) -> tuple[Array, Array]:
    """Raise ValueError: the errors of steps are unknown."""
    raise ValueError(f"the errors of {steps} steps are not measured")


def steps_to_measure(encoding: Encoding, times_of: TimesOf) -> list[tuple[float, float | None]]:
    """Return the steps, from time to time, whose errors the programmes of an encoding read."""
    if isinstance(encoding, EvenStages):
        grids = [times_of(int(encoding.lengths[units].sum())) for units in _even_units(encoding)]
        return [step for grid in grids for step in zip(grid, (*grid[1:], None), strict=True)]
    ends = (*times_of(encoding.steps), None)
    last = len(ends) if encoding.skip else 2
    return [(begin, end) for i, begin in enumerate(ends[:-1]) if begin is not None for end in ends[i + 1 : i + last]]


def least_error_plans(encoding: Encoding, width_costs: Array, errors_of: ErrorsOf) -> list[Levels]:
    """Return the plans that no other plan dominates in summed error and cost, the cheapest first.

    Costs are rounded (`SHARES`); the result is exact for these.
    """
    share = np.maximum(1, np.round(SHARES * width_costs / width_costs[-1])).astype(np.int64)
    found = [path for programme in _programmes(encoding, errors_of) for path in programme.paths(share)]
    plans, least = [], np.inf
    for _, error, levels in sorted(found, key=lambda path: path[:2]):
        if error < least:
            least = error
            plans.append(levels)
    return plans


@dataclass(frozen=True)
class Programme:
    """The choices of one number of steps: K units with `lengths` [K], at `places` [K] of a genome of `units`.

    `start` [K] is the error of beginning at each unit, infinite where a plan can't.  `edges` [K, K + 1, widths] is that
    of running a unit at a width and going on at another, or at the clean image; infinite where a plan can't.
    """

    units: int
    places: NDArray[np.int64]
    lengths: NDArray[np.int64]
    start: Array
    edges: Array

    def paths(self, share: NDArray[np.int64]) -> Iterator[tuple[int, float, Levels]]:
        """Yield cost, error and levels of the best plan of each cost; `share` [widths] is the cost of a step."""
        count, budget = len(self.lengths), int(self.lengths.sum() * share.max())
        value = np.full((count + 1, budget + 1), np.inf)
        value[count, 0] = 0.0
        chosen = np.zeros((count, budget + 1, 2), dtype=np.int64)
        for i in range(count - 1, -1, -1):
            for j, width in np.argwhere(np.isfinite(self.edges[i])).tolist():
                cost = int(self.lengths[i] * share[width])
                total = np.full(budget + 1, np.inf)
                total[cost:] = self.edges[i, j, width] + value[j, : budget + 1 - cost]
                better = total < value[i]
                value[i, better], chosen[i, better] = total[better], (j, width)
        totals = self.start[:, None] + value[:-1]
        for cost in np.flatnonzero(np.isfinite(totals).any(axis=0)).tolist():
            first = int(totals[:, cost].argmin())
            yield cost, float(totals[first, cost]), self._levels(first, cost, chosen, share)

    def _levels(self, unit: int, budget: int, chosen: NDArray[np.int64], share: NDArray[np.int64]) -> Levels:
        levels = np.full(self.units, SKIP_LEVEL)
        while unit < len(self.lengths):
            after, width = chosen[unit, budget].tolist()
            levels[self.places[unit]] = width
            unit, budget = after, budget - int(self.lengths[unit] * share[width])
        return levels


def _programmes(encoding: Encoding, errors_of: ErrorsOf) -> Iterator[Programme]:
    if isinstance(encoding, EvenStages):
        for units in _even_units(encoding):
            lengths = encoding.lengths[units]
            yield _programme(encoding.units, units, lengths, *errors_of(int(lengths.sum())), free=False)
        return
    every = np.arange(encoding.units)
    yield _programme(encoding.units, every, encoding.lengths, *errors_of(encoding.steps), free=encoding.skip)


def _programme(
    units: int, places: NDArray[np.int64], lengths: NDArray[np.int64], start: Array, errors: Array, free: bool
) -> Programme:
    """Return the programme of errors of steps, `start` [N] and `errors` [N, N + 1, widths]; units may be left out."""
    firsts = np.cumsum(lengths) - lengths
    lasts, count = firsts + lengths - 1, len(lengths)
    edges = np.full((count, count + 1, errors.shape[2]), np.inf)
    ends = [*firsts, len(errors)]
    for i in range(count):
        inside = sum((errors[k, k + 1] for k in range(firsts[i], lasts[i])), np.zeros(errors.shape[2]))
        for j in range(i + 1, count + 1 if free else i + 2):
            edges[i, j] = inside + errors[lasts[i], ends[j]]
    begin = start[firsts].copy()
    if not free:
        begin[1:] = np.inf
    return Programme(units, places, lengths, begin, edges)


def _even_units(encoding: EvenStages) -> Sequence[NDArray[np.int64]]:
    """Return the units that plans of 1, 2, ... units run, for as many evenly chosen numbers as `MOST_TIMES` holds."""
    every = [encoding.places(taken) for taken in range(encoding.units, 0, -1)]
    apart = 1
    while sum(int(encoding.lengths[units].sum()) for units in every[::apart]) > MOST_TIMES and apart < len(every):
        apart += 1
    return every[::apart][::-1]
