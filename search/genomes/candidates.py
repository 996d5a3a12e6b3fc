"""Candidates: plans that a search chooses among, most of them one change away from a few points.

Where units are free (`Encoding.has_free_units`), nothing as long as a plan is computed for a change: its genome is that
of its point with one letter replaced, and sums over its units are those of its point and what the change differs by.
Levels are made where a constraint on cost, a model of an earlier search or a user's proxy reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from stepfront.arrays import Array
from stepfront.search.genomes.encodings import Levels, Plans

MANY_UNITS = 50
"""Units from which on sums over candidates are computed by change; with fewer, all at once takes less time."""

MOST_POINTS = 2000
"""Points whose sums are kept."""


class Point(NamedTuple):
    """A plan whose neighbours are candidates: its genome, its levels with all genes, the trials they descend from."""

    genome: str
    levels: Levels
    parents: tuple[int, ...]


class Candidate(NamedTuple):
    """A plan that may be proposed: a point, or one with the unit at `place` at another `level`."""

    genome: str
    origin: str
    point: Point
    place: int = -1
    level: int = 0

    @classmethod
    def of(cls, genome: str, origin: str, levels: Levels, parents: tuple[int, ...] = ()) -> Candidate:
        """Return the candidate that is a point itself."""
        return cls(genome, origin, Point(genome, levels, parents))

    @property
    def levels(self) -> Levels:
        """Its levels with all genes."""
        if self.place < 0:
            return self.point.levels
        levels = self.point.levels.copy()
        levels[self.place] = self.level
        return levels


class Candidates(Sequence[Levels]):
    """The levels of plans to choose among, one or more: [N, units], which are made when they are read."""

    def __init__(self, every: Sequence[Candidate]) -> None:
        self.every = every

    def __len__(self) -> int:
        return len(self.every)

    @overload
    def __getitem__(self, index: int) -> Levels: ...

    @overload
    def __getitem__(self, index: slice) -> Candidates: ...

    def __getitem__(self, index: int | slice) -> Levels | Candidates:
        return Candidates(self.every[index]) if isinstance(index, slice) else self.every[index].levels

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Levels:
        levels = np.array([one.point.levels for one in self.every], dtype=dtype)
        levels[self.changed, self.places] = self.levels_after
        return levels

    @cached_property
    def genomes(self) -> list[str]:
        """The genome of each plan, [N]."""
        return [one.genome for one in self.every]

    @cached_property
    def changed(self) -> NDArray[np.int64]:
        """Which plans are a point with a change, [changes]."""
        return np.flatnonzero(np.array([one.place for one in self.every]) >= 0)

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """The unit of each change, [changes]."""
        return np.array([self.every[i].place for i in self.changed], dtype=np.int64)

    @cached_property
    def levels_after(self) -> Levels:
        """The new level of each change, [changes]."""
        return np.array([self.every[i].level for i in self.changed], dtype=np.int64)

    @cached_property
    def levels_before(self) -> Levels:
        """The level that each change replaces, [changes]."""
        each = (self.every[i] for i in self.changed)
        return np.array([one.point.levels.item(one.place) for one in each], dtype=np.int64)

    def take(self, indices: NDArray[np.int64]) -> Candidates:
        """Return some of the plans."""
        return Candidates([self.every[i] for i in indices.tolist()])


class ByChange:
    """Compute sums over the units of candidates: those of their points, and what the changes differ by.

    `sums` returns them for plans [N, units], and `differences` for changes, given as their places and the levels before
    and after, [N] each: [N, K].  Points' sums are kept, as most are asked for again.
    """

    def __init__(
        self,
        sums: Callable[[Levels], Array],
        differences: Callable[[NDArray[np.int64], Levels, Levels], Array],
    ) -> None:
        self._sums, self._differences = sums, differences
        self._known: dict[str, Array] = {}

    def __call__(self, plans: Candidates) -> Array:
        """Return the sums of each plan, [N, K]."""
        points = {one.point.genome: one.point.levels for one in plans.every}
        if len(self._known) > MOST_POINTS:
            self._known = {}  # they are computed again, with the same result
        if new := [genome for genome in points if genome not in self._known]:
            self._known |= zip(new, self._sums(np.array([points[genome] for genome in new])), strict=True)
        found = np.array([self._known[one.point.genome] for one in plans.every])
        found[plans.changed] += self._differences(plans.places, plans.levels_before, plans.levels_after)
        return found


class UnitSums:
    """Sum over the units of plans what their levels are worth there, `worth` [units, levels]."""

    def __init__(self, worth: Array) -> None:
        self._worth = worth
        self._units = np.arange(len(worth))
        self._by_change = ByChange(
            lambda plans: self._direct(plans)[:, None],
            lambda places, before, after: (worth[places, after] - worth[places, before])[:, None],
        )

    def __call__(self, plans: Plans) -> Array:
        """Return the sum of each plan, [N]; genes of the sampler, behind the levels of widths, count for nothing."""
        if isinstance(plans, Candidates) and len(self._worth) >= MANY_UNITS and len(plans.changed):
            return self._by_change(plans)[:, 0]
        return self._direct(np.asarray(plans))

    def _direct(self, plans: Levels) -> Array:
        return np.asarray(self._worth[self._units, plans[:, : len(self._units)]].sum(axis=1))
