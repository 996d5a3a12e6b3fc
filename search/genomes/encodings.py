"""Encode plans as genomes, short vectors of small integers, and decode them to a width per step.

All variation works on *units*: one level for each of `units` stretches of steps.  A level is -1 for a skipped step,
otherwise an index into the supernet's widths.  An encoding defines how many units there are, how many steps each
spans, and which vectors are valid; `project` maps any vector to the nearest valid one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stepfront.errors import InputError
from stepfront.search.config import SpaceSettings
from stepfront.trainers.variant import SKIP, Variant, marked, repaired

Levels = NDArray[np.int64]
Plans = Sequence[Levels] | Levels
"""Levels of several plans, [N, units]; those that are one array are read fastest."""

SKIP_LEVEL = -1
GENE_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
_LETTERS = np.frombuffer((GENE_LETTERS + "-").encode(), dtype=np.uint8)
"""The letter of each level; index -1, a skipped step, is the last."""
_LEVELS = np.full(256, len(GENE_LETTERS), dtype=np.int64)  # other characters get a level above every encoding's highest
_LEVELS[_LETTERS] = [*range(len(GENE_LETTERS)), SKIP_LEVEL]


@dataclass(frozen=True)
class Encoding(ABC):
    """Map levels to a width per step, for the `steps` of the sampler and the `widths` of the supernet, ascending.

    Steps can be skipped where `skip` is true.  With `marks` the choices are variants, ascending in cost: `widths` then
    has the width of each, and may name one several times.
    """

    steps: int
    widths: tuple[float, ...]
    skip: bool = False
    marks: tuple[str, ...] = ()

    @property
    @abstractmethod
    def units(self) -> int:
        """Number of levels of a plan."""

    @abstractmethod
    def project(self, levels: Levels) -> Levels:
        """Return the nearest valid levels, [units]."""

    @abstractmethod
    def pack(self, levels: Levels) -> str:
        """Return the genome of levels, a short text."""

    def pack_all(self, plans: Levels) -> list[str]:
        """Return the genomes of N plans' levels, given as one array [N, units]."""
        return [self.pack(levels) for levels in plans]

    @abstractmethod
    def unpack(self, genome: str) -> Levels:
        """Return the levels of a genome.  Raises InputError when the text is not a genome of this encoding."""

    @property
    def has_free_units(self) -> bool:
        """Whether a change of one unit, to any level, is a valid plan and changes nothing else."""
        return False

    def with_level(self, genome: str, unit: int, level: int) -> str:
        """Return a genome after the change of one unit, where units are free, so that each is one letter."""
        return genome[:unit] + GENE_LETTERS[level] + genome[unit + 1 :]

    @property
    def of_widths(self) -> Encoding:
        """The encoding of the widths alone."""
        return self

    @property
    def choices(self) -> tuple[int, ...]:
        """Number of choices of each gene that follows the levels of the widths; none here (sampler_genes.py)."""
        return ()

    def sampler_of(self, levels: Levels) -> tuple[str, str] | None:
        """Return solver and grid of levels; None where all plans run on the search's own."""
        return None

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Number of steps per unit, [units]; they differ by at most one."""
        edges = np.arange(self.units + 1) * self.steps // self.units
        return np.diff(edges)

    @property
    def step_counts(self) -> tuple[int, ...]:
        """The numbers of steps that plans have, ascending; a skipped step counts."""
        return (self.steps,)

    @property
    def lowest(self) -> int:
        """The smallest level."""
        return SKIP_LEVEL if self.skip else 0

    @property
    def highest(self) -> int:
        """The level of the full width."""
        return len(self.widths) - 1

    def draw(self, rng: np.random.Generator) -> Levels:
        """Return an independent random level for each unit, [units]."""
        return rng.integers(self.lowest, self.highest + 1, self.units)

    @cached_property
    def variants(self) -> tuple[Variant, ...]:
        """The variant of each level."""
        return tuple(map(marked, self.widths, self.marks or ("",) * len(self.widths)))

    @cached_property
    def plain_levels(self) -> Levels:
        """The levels of variants without marks, ascending."""
        return np.flatnonzero([not variant.mark for variant in self.variants])

    def step_widths(self, levels: Levels) -> tuple[float, ...]:
        """Return the width of each step, [steps], of levels [units]."""
        table = np.array([*self.widths, SKIP])  # index -1 is the last entry: skip
        return tuple(float(w) for w in table[np.repeat(levels, self.lengths)])

    def step_variants(self, levels: Levels) -> tuple[Variant, ...]:
        """Return the variant of each step, as many as `step_widths` has, of valid levels [units]."""
        if not self.marks:
            return tuple(map(Variant, self.step_widths(levels)))
        table = [*self.variants, Variant(SKIP)]
        chosen = [table[level] for level in np.repeat(levels, self.lengths)]
        return tuple(chosen)

    def repaired(self, levels: Levels) -> Levels:
        """Return levels in which each unit without features to reuse runs all levels of the network, [units]."""
        if not self.marks:
            return levels
        table = [*self.variants, Variant(SKIP)]
        level_of = {variant: level for level, variant in enumerate(self.variants)} | {Variant(SKIP): SKIP_LEVEL}
        found = repaired([table[level] for level in levels])
        return np.array([level_of[variant] for variant in found], dtype=np.int64)

    def levels_of(self, step_widths: tuple[float, ...]) -> Levels:
        """Return the nearest levels to any widths per step: each unit takes the width nearest to its mean."""
        per_unit = np.add.reduceat(np.array(step_widths), np.cumsum(self.lengths) - self.lengths) / self.lengths
        plain = self.plain_levels
        choices = np.array([*np.array(self.widths)[plain], *([SKIP] if self.skip else [])])
        nearest = np.abs(per_unit[:, None] - choices[None]).argmin(axis=1)
        return self.project(np.array([*plain, SKIP_LEVEL])[nearest])

    def _not_empty(self, levels: Levels) -> Levels:
        # A plan has at least one step: the cleanest, where it matters most.
        if self.skip and (levels == SKIP_LEVEL).all():
            levels = levels.copy()
            levels[-1] = 0
        return levels

    def _clipped(self, levels: Levels) -> Levels:
        """Return levels within the valid range; numpy's own `clip` takes five times as long for so few."""
        return np.minimum(np.maximum(levels, self.lowest), self.highest)


@dataclass(frozen=True, init=False)
class Stages(Encoding):
    """K equal stages with one level each."""

    stages: int = field(init=False)

    def __init__(
        self, steps: int, widths: tuple[float, ...], skip: bool, stages: int, marks: tuple[str, ...] = ()
    ) -> None:
        super().__init__(steps, widths, skip, marks)
        object.__setattr__(self, "stages", min(stages, steps))

    @property
    def units(self) -> int:
        """Number of stages."""
        return self.stages

    def project(self, levels: Levels) -> Levels:
        """Return the levels clipped to the valid range; where all are skipped, the last one runs."""
        return self.repaired(self._not_empty(self._clipped(levels)))

    def pack(self, levels: Levels) -> str:
        """Return the genome: one letter per stage, `-` for a skipped one."""
        return _LETTERS[levels].tobytes().decode()

    @property
    def has_free_units(self) -> bool:
        """Whether a change of one unit, to any level, is a valid plan and changes nothing else."""
        return not self.skip and not self.marks

    def pack_all(self, plans: Levels) -> list[str]:
        """Return the genomes of N plans' levels, given as one array [N, stages]."""
        text = _LETTERS[plans].tobytes().decode()
        return [text[start : start + self.units] for start in range(0, len(text), self.units)]

    def unpack(self, genome: str) -> Levels:
        """Return the levels of a genome.  Raises InputError when the text is not a genome of this encoding."""
        levels = _LEVELS[np.frombuffer(genome.encode(), dtype=np.uint8)]
        if len(levels) != self.units or levels.max() > self.highest or levels.min() < self.lowest:
            raise InputError(f"{genome!r} is not a genome of {self.units} stages and {len(self.widths)} widths")
        if self.marks and not np.array_equal(self.repaired(levels), levels):
            raise InputError(f"{genome!r} is not a genome of {self.units} stages: a stage has no features to reuse")
        return levels


class Steps(Stages):
    """One level per step: as many stages as steps."""

    def __init__(self, steps: int, widths: tuple[float, ...], skip: bool, marks: tuple[str, ...] = ()) -> None:
        super().__init__(steps, widths, skip, steps, marks)


class EvenStages(Stages):
    """K equal stages, of which any number run, spread evenly from noise to image.

    A plan is a sampler of that many steps with one level per stage.  Steps skipped at arbitrary places make an uneven
    grid, which loses quality that the same number of even steps keeps (docs/results.md).
    """

    def __init__(self, steps: int, widths: tuple[float, ...], stages: int, marks: tuple[str, ...] = ()) -> None:
        super().__init__(steps, widths, True, stages, marks)

    def project(self, levels: Levels) -> Levels:
        """Return the same levels in their order, with the skipped units spread evenly between them."""
        levels = super().project(levels)
        return self._spread(levels[levels != SKIP_LEVEL])

    def unpack(self, genome: str) -> Levels:
        """Return the levels of a genome.  Raises InputError also when its steps are not spread evenly."""
        levels = super().unpack(genome)
        if not np.array_equal(self.project(levels), levels):
            raise InputError(f"{genome!r} is not a genome of {self.units} even stages")
        return levels

    def draw(self, rng: np.random.Generator) -> Levels:
        """Return independent random levels for a random number of units, all numbers equally likely, [units]."""
        return self._spread(rng.integers(0, self.highest + 1, int(rng.integers(1, self.units + 1))))

    def step_widths(self, levels: Levels) -> tuple[float, ...]:
        """Return the width of each step that is not skipped, [at most steps], of levels [units]."""
        return tuple(width for width in super().step_widths(levels) if width != SKIP)

    def step_variants(self, levels: Levels) -> tuple[Variant, ...]:
        """Return the variant of each step that is not skipped, [at most steps], of valid levels [units]."""
        return tuple(variant for variant in super().step_variants(levels) if variant.width != SKIP)

    def levels_of(self, step_widths: tuple[float, ...]) -> Levels:
        """Return the nearest levels to any widths per step, with about as many steps."""
        given = np.array([width for width in step_widths if width != SKIP])
        # Where two numbers of stages are equally near in steps, take the larger.
        taken = self.units - int(np.abs(self._totals[::-1] - len(given)).argmin())
        ends = np.cumsum(self.lengths[self.places(taken)])
        middles = ((ends - 0.5 * np.diff(ends, prepend=0)) / ends[-1] * len(given)).astype(int)
        widths = np.array(self.widths)[self.plain_levels]
        return self._spread(self.plain_levels[np.abs(given[middles][:, None] - widths[None]).argmin(axis=1)])

    @property
    def step_counts(self) -> tuple[int, ...]:
        """The numbers of steps that plans have, ascending."""
        return tuple(sorted(set(map(int, self._totals))))

    def _spread(self, taken: Levels) -> Levels:
        levels = self._skipped.copy()
        levels[self._places[len(taken)]] = taken
        return levels

    @cached_property
    def _skipped(self) -> Levels:
        return np.full(self.units, SKIP_LEVEL)

    @cached_property
    def _places(self) -> list[NDArray[np.int64]]:
        """The units that a plan of 0, 1, 2, ... units runs."""
        return [self.places(taken) for taken in range(self.units + 1)]

    @cached_property
    def _totals(self) -> NDArray[np.int64]:
        """Number of steps of a plan that runs 1, 2, ... units."""
        return np.array([self.lengths[self.places(taken)].sum() for taken in range(1, self.units + 1)])

    def places(self, taken: int) -> NDArray[np.int64]:
        """Return the units that a plan of `taken` units runs, [taken]."""
        return np.arange(taken) * self.units // max(1, taken)


@dataclass(frozen=True, init=False)
class Cuts(Encoding):
    """At most `cuts` cut points between steps, and one level per run between them."""

    cuts: int = field(init=False)

    def __init__(
        self, steps: int, widths: tuple[float, ...], skip: bool, cuts: int, marks: tuple[str, ...] = ()
    ) -> None:
        super().__init__(steps, widths, skip, marks)
        object.__setattr__(self, "cuts", min(cuts, steps - 1))

    @property
    def units(self) -> int:
        """Number of steps."""
        return self.steps

    def project(self, levels: Levels) -> Levels:
        """Merge the shortest run into the neighbour nearer in level until few enough runs remain."""
        levels = self._clipped(levels)
        while len(bounds := run_bounds(levels)) - 1 > self.cuts + 1:
            starts, ends = bounds[:-1], bounds[1:]
            i = int(np.argmin(ends - starts))
            neighbours = [j for j in (i - 1, i + 1) if 0 <= j < len(starts)]
            j = min(neighbours, key=lambda j: abs(int(levels[starts[j]]) - int(levels[starts[i]])))
            levels[starts[i] : ends[i]] = levels[starts[j]]
        return self.repaired(self._not_empty(levels))

    def repaired(self, levels: Levels) -> Levels:
        """Return levels in which each run without features to reuse is full, complete: one more run would be a cut."""
        starts = run_bounds(levels)[:-1]
        return super().repaired(levels[starts])[np.searchsorted(starts, np.arange(len(levels)), side="right") - 1]

    def pack(self, levels: Levels) -> str:
        """Return the genome: one letter per run, then the cut points, such as `03@12`."""
        bounds = run_bounds(levels)
        runs = "".join("-" if levels[b] == SKIP_LEVEL else GENE_LETTERS[levels[b]] for b in bounds[:-1])
        return f"{runs}@{','.join(str(b) for b in bounds[1:-1])}"

    def unpack(self, genome: str) -> Levels:
        """Return the levels of a genome.  Raises InputError when the text is not a genome of this encoding."""
        runs, _, cuts = genome.partition("@")
        try:
            bounds = [0, *(int(c) for c in cuts.split(",") if c), self.steps]
            levels = np.repeat([SKIP_LEVEL if g == "-" else GENE_LETTERS.index(g) for g in runs], np.diff(bounds))
        except ValueError:
            raise InputError(f"{genome!r} is not a genome of cuts, such as 01@5") from None
        if len(levels) != self.steps or not np.array_equal(self.project(levels), levels):
            raise InputError(f"{genome!r} is not a genome of {self.steps} steps and at most {self.cuts} cuts")
        return levels


def run_bounds(levels: Levels) -> NDArray[np.int64]:
    """Return where runs of one level begin, and the end: [0, ..., len]."""
    return np.concatenate([[0], np.flatnonzero(levels[1:] != levels[:-1]) + 1, [len(levels)]])


def make_encoding(space: SpaceSettings, steps: int, choices: Sequence[float | Variant]) -> Encoding:
    """Return the encoding of the settings for widths or variants, ascending in cost."""
    variants = [choice if isinstance(choice, Variant) else Variant(choice) for choice in choices]
    widths, marks = tuple(variant.width for variant in variants), tuple(variant.mark for variant in variants)
    marks = marks if any(marks) else ()
    stages = steps if space.encoding == "steps" else space.stages
    if space.skip == "even":
        return EvenStages(steps, widths, stages, marks)
    if space.encoding == "cuts":
        return Cuts(steps, widths, space.skip, space.cuts, marks)
    return Stages(steps, widths, space.skip, stages, marks)
