"""Make children of plans by crossover and mutation that keep a plan's blocks, its runs of one level.

Optuna crosses categorical parameters gene by gene (uniform crossover).  Two plans of one run each would have a child of
about half as many runs as genes; a good plan has few runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from stepfront.search.genomes.candidates import Candidate, Point
from stepfront.search.genomes.encodings import (
    SKIP_LEVEL,
    Encoding,
    EvenStages,
    Levels,
    Stages,
    run_bounds,
)

Generator = np.random.Generator


@dataclass(frozen=True)
class Child:
    """New levels, the operator that made them, and whether they were crossed."""

    levels: Levels
    origin: str
    crossed: bool


def make_child(
    rng: Generator, first: Levels, second: Levels, encoding: Encoding, crossover: float, most_mutations: int
) -> Child:
    """Return a child of two parents: with probability `crossover` their recombination, otherwise the first parent.

    A recombination is mutated with probability one half, and always where it equals a parent.  A mutation applies 1 to
    `most_mutations` operators.
    """
    crossed = rng.random() < crossover
    levels = _crossed(rng, first, second, encoding.units) if crossed else first.copy()
    unchanged = levels.tobytes() in (first.tobytes(), second.tobytes())
    mutated = unchanged or rng.random() < 0.5
    if mutated:
        for _ in range(int(rng.integers(1, most_mutations + 1))):
            levels = _mutated(rng, levels, encoding)
    return Child(encoding.project(levels), "mutation" if mutated else "crossover", crossed)


def _crossed(rng: Generator, first: Levels, second: Levels, units: int) -> Levels:
    """Return the recombined levels of widths; each gene behind them is that of either parent."""
    widths = recombine(rng, first[:units], second[:units])
    if len(first) == units:
        return widths
    genes = np.where(rng.random(len(first) - units) < 0.5, first[units:], second[units:])
    return np.concatenate([widths, genes])


def _mutated(rng: Generator, levels: Levels, encoding: Encoding) -> Levels:
    """Return levels after one mutation: of the widths, or as likely as each of these, of a gene of the sampler."""
    widths, genes, plain = levels[: encoding.units], levels[encoding.units :], encoding.of_widths
    mutations = mutations_of(plain)
    at = int(rng.integers(len(mutations) + bool(encoding.choices)))
    if at == len(mutations):
        return np.concatenate([widths, change_gene(rng, genes, encoding.choices)])
    mutated = mutations[at](rng, widths, plain)
    return np.concatenate([mutated, genes]) if len(genes) else mutated


def change_gene(rng: Generator, genes: Levels, choices: Sequence[int]) -> Levels:
    """Give one gene another of its choices, all equally likely."""
    at = int(_pick(rng, [place for place, count in enumerate(choices) if count > 1]))
    child = genes.copy()
    child[at] = (genes[at] + rng.integers(1, choices[at])) % choices[at]
    return child


def count_neighbours(encoding: Encoding) -> int:
    """Return how many single changes a plan has: each unit, and each gene of the sampler, to each other level."""
    return encoding.units * (encoding.highest - encoding.lowest) + sum(count - 1 for count in encoding.choices)


def neighbours(points: Levels, indices: NDArray[np.int64], encoding: Encoding) -> Levels:
    """Return the plan of one change to each of `points` [N, units]; where projected, several may be equal: [N, units].

    `indices` [N] are those of the changes, below `count_neighbours`.
    """
    places, steps, lowest, counts = (table[indices] for table in _changes(encoding))
    rows, children = np.arange(len(points)), points.copy()
    children[rows, places] = lowest + (points[rows, places] - lowest + 1 + steps) % counts
    return project_all(children, encoding)


def changed_candidates(
    points: Sequence[Point], indices: NDArray[np.int64], origin: str, encoding: Encoding
) -> list[Candidate]:
    """Return the candidate of one change to each of `points`; where projected, several may be equal.

    `indices` [N] are those of the changes, below `count_neighbours`.
    """
    if encoding.has_free_units:
        places, steps, lowest, counts = (table[indices].tolist() for table in _changes(encoding))
        found = []
        for point, place, step, low, count in zip(points, places, steps, lowest, counts, strict=True):
            level = low + (point.levels.item(place) - low + 1 + step) % count
            found.append(Candidate(encoding.with_level(point.genome, place, level), origin, point, place, level))
        return found
    plans = neighbours(np.array([point.levels for point in points]), indices, encoding)
    return [
        Candidate.of(genome, origin, levels, point.parents)
        for genome, levels, point in zip(encoding.pack_all(plans), plans, points, strict=True)
    ]


@lru_cache(maxsize=8)
def _changes(encoding: Encoding) -> NDArray[np.int64]:
    """Return place, step, lowest level and number of levels of each single change, [4, changes]."""
    levels = encoding.highest - encoding.lowest + 1
    genes = [(place, encoding.lowest, levels) for place in range(encoding.units)]
    genes += [(encoding.units + place, 0, count) for place, count in enumerate(encoding.choices)]
    rows = [(place, step, lowest, count) for place, lowest, count in genes for step in range(count - 1)]
    return np.array(rows, dtype=np.int64).reshape(-1, 4).T


def project_all(plans: Levels, encoding: Encoding) -> Levels:
    """Return the nearest valid levels of plans [N, units]: what `Encoding.project` makes of each."""
    plain, units = encoding.of_widths, encoding.units
    if plain.marks or not isinstance(plain, Stages):
        return np.array([encoding.project(levels) for levels in plans]).reshape(plans.shape)
    projected = plans.copy()
    widths = projected[:, :units]
    np.clip(widths, plain.lowest, plain.highest, out=widths)
    if plain.skip:
        widths[(widths == SKIP_LEVEL).all(axis=1), -1] = 0  # a plan has at least one step
    if isinstance(plain, EvenStages):
        taken = widths != SKIP_LEVEL
        chosen = widths[taken]
        widths[:] = SKIP_LEVEL
        widths[_even_places(plain)[taken.sum(axis=1)]] = chosen
    if encoding.choices:
        np.clip(projected[:, units:], 0, np.array(encoding.choices) - 1, out=projected[:, units:])
    return projected


@lru_cache(maxsize=8)
def _even_places(encoding: EvenStages) -> NDArray[np.bool_]:
    """Return which units a plan of 0, 1, 2, ... units runs, [units + 1, units]."""
    taken = np.zeros((encoding.units + 1, encoding.units), dtype=bool)
    for count, row in enumerate(taken):
        row[encoding.places(count)] = True
    return taken


def recombine(rng: Generator, first: Levels, second: Levels) -> Levels:
    """Return a one- or two-point crossover, equally often."""
    return _pick(rng, (one_point, two_point))(rng, first, second)


def one_point(rng: Generator, first: Levels, second: Levels) -> Levels:
    """Return the start of one parent and the end of the other."""
    if len(first) < 2:
        return first.copy()
    cut = int(rng.integers(1, len(first)))
    return np.concatenate([first[:cut], second[cut:]])


def two_point(rng: Generator, first: Levels, second: Levels) -> Levels:
    """Return one parent with a stretch of the other."""
    start, end = np.sort(rng.integers(0, len(first) + 1, 2))
    child = first.copy()
    child[start:end] = second[start:end]
    return child


def shift_boundary(rng: Generator, levels: Levels, encoding: Encoding) -> Levels:
    """Move the boundary between two runs by a geometrically distributed number of units."""
    inner = run_bounds(levels)[1:-1]
    if not len(inner):
        return change_run(rng, levels, encoding)
    at = int(_pick(rng, inner))
    mean = max(1.0, len(levels) / 20)
    far = int(rng.geometric(1 / mean))
    child = levels.copy()
    if rng.random() < 0.5:
        child[max(0, at - far) : at] = levels[at]
    else:
        child[at : at + far] = levels[at - 1]
    return child


def change_run(rng: Generator, levels: Levels, encoding: Encoding) -> Levels:
    """Give one run another level, a neighbouring one two times in three."""
    bounds = run_bounds(levels)
    i = int(rng.integers(len(bounds) - 1))
    child = levels.copy()
    child[bounds[i] : bounds[i + 1]] = _other_level(rng, int(levels[bounds[i]]), encoding)
    return child


def change_stretch(rng: Generator, levels: Levels, encoding: Encoding) -> Levels:
    """Give a short stretch (one unit, or about a twentieth of them) another level."""
    length = int(rng.geometric(1 / max(1.0, len(levels) / 20)))
    start = int(rng.integers(len(levels)))
    child = levels.copy()
    child[start : start + length] = _other_level(rng, int(levels[start]), encoding)
    return child


def exchange(rng: Generator, levels: Levels, encoding: Encoding) -> Levels:
    """Exchange the levels of two units of equal length: another plan of exactly the same cost."""
    child = levels.copy()
    # Exchanging a skipped unit of even stages changes nothing: they are spread again.
    free = levels != SKIP_LEVEL if isinstance(encoding, EvenStages) else np.ones(len(levels), dtype=bool)
    for i in rng.permutation(np.flatnonzero(free)) if np.ptp(levels) else ():
        others = np.flatnonzero(free & (levels != levels[i]) & (encoding.lengths == encoding.lengths[i]))
        if len(others):
            j = int(_pick(rng, others))
            child[i], child[j] = levels[j], levels[i]
            break
    # An encoding that would project the exchange elsewhere would change its cost.
    return child if np.array_equal(encoding.project(child), child) else levels.copy()


def thin(rng: Generator, levels: Levels, encoding: Encoding) -> Levels:
    """Skip every second unit that runs in a stretch; or, equally often, run all its skipped units as the one before.

    Other mutations reach such a plan only through worse ones.
    """
    start, end = np.sort(rng.integers(0, len(levels) + 1, 2))
    child = levels.copy()
    if rng.random() < 0.5:
        running = start + np.flatnonzero(levels[start:end] != SKIP_LEVEL)
        child[running[1::2]] = SKIP_LEVEL
    else:
        for i in range(max(1, int(start)), int(end)):
            child[i] = child[i - 1] if child[i] == SKIP_LEVEL else child[i]
    return child


Mutation = Callable[[Generator, Levels, Encoding], Levels]

MUTATIONS: tuple[Mutation, ...] = (shift_boundary, change_run, change_stretch, exchange)


def mutations_of(encoding: Encoding) -> tuple[Mutation, ...]:
    """Return the mutations for plans of this encoding; `thin` only where every second step can be skipped."""
    return (*MUTATIONS, thin) if encoding.skip and isinstance(encoding, Stages) else MUTATIONS


def _other_level(rng: Generator, level: int, encoding: Encoding) -> int:
    near = [other for other in (level - 1, level + 1) if encoding.lowest <= other <= encoding.highest]
    every = [other for other in range(encoding.lowest, encoding.highest + 1) if other != level]
    if not every:
        return level
    return int(_pick(rng, near if rng.random() < 2 / 3 else every))


def _pick(rng: Generator, options):  # type: ignore[no-untyped-def]  # the type of what it is given
    return options[int(rng.integers(len(options)))]
