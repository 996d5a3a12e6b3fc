"""Search as DDSM does (arXiv 2310.03337, as released), as a baseline: an elitist genetic algorithm on a weighted sum.

The population is 50: the uniform plans first, then independent genes.  Crossover has a single point; each gene of a
child is redrawn with probability 0.001.  Fitness is FID + 0.001 x mean MMAC per step.  On DDSM's CIFAR-10 network the
cost of full width (6.07 points) is then 1.635 times its FID (3.713); this ratio is kept for networks and features of
any other scale.  Re-implemented from the published settings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from stepfront.search.genomes.encodings import Encoding, Levels

POPULATION = 50
MUTATION = 0.001
COST_RATIO = 6.07 / 3.713


class DDSMSearch:
    """Search by generations: `ask` for plans, evaluate them, `tell` their scores, repeat."""

    def __init__(self, encoding: Encoding, seed: int, population: int = POPULATION) -> None:
        self._encoding, self._rng, self._size = encoding, np.random.default_rng([seed, 4]), population
        self._population: list[Levels] = []
        self._fitness: list[float] = []
        self._asked: list[Levels] = []
        self._full_fid = float("nan")

    def ask(self, most: int) -> list[Levels]:
        """Return up to `most` plans of the next generation, none of which is in the population."""
        wanted = min(most, self._size)
        if not self._population:
            uniform = [np.full(self._encoding.units, level) for level in range(self._encoding.highest + 1)]
            self._asked = [*uniform, *(self._random() for _ in range(self._size - len(uniform)))][:wanted]
            return self._asked
        known = {levels.tobytes() for levels in self._population}
        self._asked = []
        for _ in range(100 * wanted):
            child = self._child()
            # pymoo, which DDSM uses, drops duplicates.
            if child.tobytes() not in known:
                known.add(child.tobytes())
                self._asked.append(child)
            if len(self._asked) == wanted:
                break
        return self._asked

    def tell(self, scores: Sequence[tuple[float, float]]) -> None:
        """Record (FID, share of full-width cost) of each plan of the last `ask`; keep the fittest of all."""
        finite = [score for score in scores if math.isfinite(score[0])]
        if math.isnan(self._full_fid) and finite:
            # Full width's, as the first generation holds it, unless it failed or the budget ends before it.
            self._full_fid = max(finite, key=lambda score: score[1])[0]
        fitness = [fid + COST_RATIO * self._full_fid * share for fid, share in scores]
        population, values = self._population + self._asked, self._fitness + fitness
        order = np.argsort(values, kind="stable")[: self._size]
        self._population = [population[i] for i in order]
        self._fitness = [values[i] for i in order]

    def _child(self) -> Levels:
        first, second = self._parent(), self._parent()
        cut = int(self._rng.integers(1, max(2, len(first))))
        child = np.concatenate([first[:cut], second[cut:]])
        redrawn = self._rng.random(len(child)) < MUTATION
        child[redrawn] = self._random()[redrawn]
        return child

    def _parent(self) -> Levels:
        # Binary tournament; the population is sorted by fitness.
        return self._population[int(self._rng.integers(len(self._population), size=2).min())]

    def _random(self) -> Levels:
        return self._rng.integers(0, self._encoding.highest + 1, self._encoding.units)
