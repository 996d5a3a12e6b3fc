"""Encode the solver and the time grid of a plan as two genes behind the levels of its widths.

The levels of such an encoding are those of the widths, [units], followed by an index into `solvers` and one into
`grids`.  What works on widths reads the first `units` alone.  Levels without the two genes stand for the first solver
and the first grid, which are the search's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from stepfront.errors import InputError
from stepfront.search.config import SpaceSettings
from stepfront.search.genomes.encodings import GENE_LETTERS, Encoding, Levels, make_encoding
from stepfront.tables.samplers import GENES_MARK
from stepfront.trainers.config import SamplerSettings
from stepfront.trainers.variant import Variant


@dataclass(frozen=True, init=False)
class SamplerGenes(Encoding):
    """An encoding of widths, with a gene for the solver and one for the grid."""

    plain: Encoding = field(init=False)
    solvers: tuple[str, ...] = field(init=False)
    grids: tuple[str, ...] = field(init=False)

    def __init__(self, plain: Encoding, solvers: tuple[str, ...], grids: tuple[str, ...]) -> None:
        super().__init__(plain.steps, plain.widths, plain.skip, plain.marks)
        for name, value in (("plain", plain), ("solvers", solvers), ("grids", grids)):
            object.__setattr__(self, name, value)

    @property
    def of_widths(self) -> Encoding:
        """The encoding of the widths alone."""
        return self.plain

    @property
    def choices(self) -> tuple[int, ...]:
        """Number of solvers and number of grids."""
        return len(self.solvers), len(self.grids)

    @property
    def units(self) -> int:
        """Number of levels of widths."""
        return self.plain.units

    @property
    def step_counts(self) -> tuple[int, ...]:
        """The numbers of steps that plans have, ascending."""
        return self.plain.step_counts

    def project(self, levels: Levels) -> Levels:
        """Return the nearest valid levels with both genes, [units + 2]; missing genes are the search's own."""
        genes = np.zeros(2, dtype=np.int64)
        given = levels[self.units :]
        genes[: len(given)] = given
        return self.joined(self.plain.project(levels[: self.units]), np.clip(genes, 0, np.array(self.choices) - 1))

    def pack(self, levels: Levels) -> str:
        """Return the genome: that of the widths, and a letter for each gene, such as `0133/20`."""
        letters = "".join(GENE_LETTERS[gene] for gene in levels[self.units :])
        return f"{self.plain.pack(levels[: self.units])}{GENES_MARK}{letters}"

    def pack_all(self, plans: Levels) -> list[str]:
        """Return the genomes of N plans' levels and genes, given as one array [N, units + 2]."""
        letters = ("".join(GENE_LETTERS[gene] for gene in genes) for genes in plans[:, self.units :])
        packed = self.plain.pack_all(plans[:, : self.units])
        return [f"{widths}{GENES_MARK}{genes}" for widths, genes in zip(packed, letters, strict=True)]

    def unpack(self, genome: str) -> Levels:
        """Return the levels of a genome.  Raises InputError when the text is not a genome of this encoding."""
        widths, mark, letters = genome.partition(GENES_MARK)
        genes = np.array([GENE_LETTERS.find(letter) for letter in letters], dtype=np.int64)
        if not mark or len(genes) != 2 or (genes < 0).any() or (genes >= np.array(self.choices)).any():
            solvers, grids = self.choices
            raise InputError(f"{genome!r} is not a genome with one of {solvers} solvers and {grids} grids")
        return self.joined(self.plain.unpack(widths), genes)

    def draw(self, rng: np.random.Generator) -> Levels:
        """Return random levels and genes, [units + 2]."""
        return self.joined(self.plain.draw(rng), rng.integers(0, self.choices))

    def step_widths(self, levels: Levels) -> tuple[float, ...]:
        """Return the width of each step of a plan."""
        return self.plain.step_widths(levels[: self.units])

    def step_variants(self, levels: Levels) -> tuple[Variant, ...]:
        """Return the variant of each step of a plan."""
        return self.plain.step_variants(levels[: self.units])

    def repaired(self, levels: Levels) -> Levels:
        """Return levels and genes in which each unit without features to reuse is full."""
        return self.joined(self.plain.repaired(levels[: self.units]), levels[self.units :])

    def levels_of(self, step_widths: tuple[float, ...]) -> Levels:
        """Return the nearest levels to any widths per step, on the search's own solver and grid."""
        return self.project(self.plain.levels_of(step_widths))

    def sampler_of(self, levels: Levels) -> tuple[str, str]:
        """Return solver and grid of levels; the search's own where they have no genes."""
        solver, grid = self.project(levels)[self.units :]
        return self.solvers[solver], self.grids[grid]

    def on_sampler(self, levels: Levels, solver: str, grid: str) -> Levels:
        """Return levels of widths with the genes of a solver and a grid; the search's own for one that it lacks."""
        genes = [_index(self.solvers, solver), _index(self.grids, grid)]
        return self.joined(levels[: self.units], np.array(genes, dtype=np.int64))

    def on_combination(self, levels: Levels, number: int) -> Levels:
        """Return levels of widths on one of all pairs of solver and grid; `number` 0 is the search's own."""
        solver, grid = divmod(number % (len(self.solvers) * len(self.grids)), len(self.grids))
        return self.joined(levels[: self.units], np.array([solver, grid], dtype=np.int64))

    @staticmethod
    def joined(levels: Levels, genes: Levels) -> Levels:
        """Return levels of widths followed by genes."""
        return np.concatenate([levels, genes])


def _index(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else 0


def make_plan_encoding(space: SpaceSettings, sampler: SamplerSettings, choices: Sequence[float | Variant]) -> Encoding:
    """Return the encoding of the settings, with genes for solver and grid where the space has several."""
    plain = make_encoding(space, sampler.steps, choices)
    if not space.searches_sampler:
        return plain
    return SamplerGenes(plain, _own_first(space.solvers, sampler.solver), _own_first(space.grids, sampler.grid))


def _own_first(names: Sequence[str] | None, own: str) -> tuple[str, ...]:
    return (own, *(name for name in names or () if name != own))
