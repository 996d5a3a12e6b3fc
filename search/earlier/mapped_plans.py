"""Map plans and gap tables of another search to the steps and widths of this one, by log-SNR.

What a width is worth depends on the noise that a step meets, not on its number.  Samplers of other numbers of steps, on
other grids, and of other noise schedules therefore meet at equal half log-SNR, lambda = log(alpha / sigma).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from stepfront.arrays import Array
from stepfront.search.genomes.encodings import Encoding, EvenStages, Levels

LogSnrOf = Callable[[int], Array]
"""Return the half log-SNR of each step of this search's sampler with so many steps, [steps], ascending."""

_PIECES = 16
"""Points per step at which the other search's width is read."""


def mapped_levels(
    widths: Sequence[float], encoding: Encoding, theirs: Array | None = None, ours: LogSnrOf | None = None
) -> Levels:
    """Return the nearest levels [units] of this encoding to the plan of another search, given as widths per step.

    `theirs` [steps] is the half log-SNR of its steps, and `ours` that of this search's.  Without both, a step takes the
    width of theirs at the same share of the way from noise to image.
    """
    given = np.asarray(widths, dtype=np.float64)
    steps = encoding.steps
    if isinstance(encoding.of_widths, EvenStages):  # with about as many steps
        steps = min(reversed(encoding.step_counts), key=lambda count: abs(count - len(given)))
    if theirs is None or ours is None or len(theirs) != len(given):
        if isinstance(encoding.of_widths, EvenStages):
            return encoding.levels_of(tuple(given))
        return encoding.levels_of(tuple(given[((np.arange(steps) + 0.5) / steps * len(given)).astype(int)]))
    return encoding.levels_of(tuple(_means(given, _edges(np.asarray(theirs)), _edges(ours(steps)))))


def mapped_gap(gap: Array, theirs: Array, widths: Sequence[float], encoding: Encoding, ours: LogSnrOf) -> Array:
    """Return the gap table [steps, levels] of another search on this one's steps and widths.

    `gap` [steps, widths] is at the half log-SNR `theirs` [steps]; it is interpolated in both directions.
    """
    at = ours(encoding.steps)
    by_step = np.column_stack([np.interp(at, theirs, column) for column in gap.T])
    return np.array([np.interp(encoding.widths, widths, row) for row in by_step])


def _edges(half_log_snr: Array) -> Array:
    """Return where each step begins in half log-SNR, and where the last one ends, [steps + 1].

    The last step is as long as the one before it; that of a sampler of one step spans everything.
    """
    last = half_log_snr[-1] - half_log_snr[-2] if len(half_log_snr) > 1 else 100.0
    return np.append(half_log_snr, half_log_snr[-1] + max(float(last), 1e-6))


def _means(widths: Array, edges: Array, wanted: Array) -> Array:
    """Return the mean width between each two of the `wanted` edges, of widths [N] between `edges` [N + 1]."""
    share = (np.arange(_PIECES) + 0.5) / _PIECES
    at = wanted[:-1, None] + share * np.diff(wanted)[:, None]
    places = np.clip(np.searchsorted(edges, at, side="right") - 1, 0, len(widths) - 1)
    return np.asarray(widths[places].mean(axis=1))
