"""NSGA-II on Optuna's GA machinery, over packed genomes: finished trials in, the next proposal out.

Ranking, crowding, elite selection and constrained domination are Optuna's.  What differs from its NSGAIISampler: a
genome is one attribute, not a parameter a gene; parents are the elite of *all* completed trials (steady state), so
seeds, earlier results and resumed trials count at once and no worker waits for a generation; variation keeps blocks;
no plan is proposed twice.  Random state is derived from (seed, proposal number): a resume needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseGASampler
from optuna.samplers.nsgaii._elite_population_selection_strategy import NSGAIIElitePopulationSelectionStrategy
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from stepfront.search.algorithm.encodings import Encoding, Levels
from stepfront.search.algorithm.variation import make_child
from stepfront.search.config import VariationSettings
from stepfront.search.pareto import domination_rank

GENOME = "genome"
"""The trial attribute that holds the packed genome."""

_TRIES = 200


@dataclass(frozen=True)
class Proposal:
    """A genome to evaluate, where it came from, and the trials that it descends from."""

    genome: str
    origin: str
    parents: tuple[int, ...] = field(default=())


class Known:
    """What a proposal depends on, kept up as trials come: every genome that was ever asked for, and the complete trials
    in the order of their results."""

    def __init__(self) -> None:
        self.genomes: set[str] = set()
        self.complete: list[FrozenTrial] = []
        self._values: list[list[float]] = []
        self._penalties: list[float] = []

    def add(self, trial: FrozenTrial) -> None:
        """Takes a complete trial in."""
        self.complete.append(trial)
        self._values.append(list(trial.values))
        self._penalties.append(sum(max(0.0, excess) for excess in trial.constraints.values()))

    @property
    def scores(self) -> NDArray[np.float64]:
        """[N, objectives] of the complete trials."""
        return np.array(self._values, dtype=np.float64)

    @property
    def penalties(self) -> NDArray[np.float64]:
        """By how much each complete trial breaks its constraints, [N]."""
        return np.array(self._penalties, dtype=np.float64)


Screen = Callable[[Sequence[Levels]], int]
"""Several children -> the index of the one to evaluate."""


class BlockNSGAII(BaseGASampler):
    """Propose packed genomes: the `initial` plans in their order, then children of the elite that are `affordable`."""

    def __init__(
        self,
        encoding: Encoding,
        variation: VariationSettings,
        seed: int,
        initial: Sequence[Proposal] = (),
        offspring: int = 1,
        screen: Screen | None = None,
        affordable: Callable[[Levels], bool] = lambda levels: True,
    ) -> None:
        super().__init__(population_size=variation.population)
        self.encoding, self.variation, self.seed = encoding, variation, seed
        self.initial = list(initial)
        self.offspring, self.screen, self._affordable = offspring, screen, affordable
        self._elite_of = NSGAIIElitePopulationSelectionStrategy(population_size=variation.population)
        self._elite: tuple[int, list[FrozenTrial]] = (-1, [])
        self._levels = lru_cache(maxsize=4 * variation.population)(encoding.unpack)

    def propose(self, study: Study, known: Known, number: int) -> Proposal | None:
        """The proposal of this number, given what is known; None when every plan of the space has been proposed."""
        seen = known.genomes
        for seed in self.initial:
            if seed.genome not in seen:
                return seed
        rng = np.random.default_rng([self.seed, number])
        elite = self._current_elite(study, known)
        children: list[tuple[Levels, Proposal]] = []
        made: set[str] = set()
        for attempt in range(_TRIES):
            # After many repeats the neighbourhood is used up: look anywhere.
            levels, proposal = self._random(rng) if not elite or attempt > _TRIES // 2 else self._child(rng, elite)
            if proposal.genome in seen or proposal.genome in made or not self._affordable(levels):
                continue
            made.add(proposal.genome)
            children.append((levels, proposal))
            if len(children) >= self._wanted(proposal):
                break
        if not children:
            return self._any_unseen(seen)
        chosen = 0 if self.screen is None or len(children) == 1 else self.screen([c[0] for c in children])
        return children[chosen][1]

    def select_parent(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The elite of all completed trials, whatever made them (Optuna's rank and crowding)."""
        return self._elite_of(study, study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))

    def _current_elite(self, study: Study, known: Known) -> list[FrozenTrial]:
        count = len(known.complete)
        if self._elite[0] != count:
            self._elite = (count, self._elite_of(study, self._candidates(known)) if count else [])
        return self._elite[1]

    def _candidates(self, known: Known) -> list[FrozenTrial]:
        """Trials of the best ranks, as many whole ranks as fill the elite: Optuna's choice is the same among these as
        among all, and takes far longer over all."""
        size = self.variation.population
        if len(known.complete) <= size:
            return list(known.complete)
        ranks = domination_rank(known.scores, known.penalties, enough=size)
        return [known.complete[i] for i in np.flatnonzero(ranks <= np.sort(ranks)[size - 1])]

    def _wanted(self, proposal: Proposal) -> int:
        return self.offspring if self.screen is not None and proposal.origin != "random" else 1

    def _child(self, rng: np.random.Generator, elite: list[FrozenTrial]) -> tuple[Levels, Proposal]:
        first, second = self._tournament(rng, elite), self._tournament(rng, elite)
        child = make_child(
            rng,
            self._levels(first.user_attrs[GENOME]),
            self._levels(second.user_attrs[GENOME]),
            self.encoding,
            self.variation.crossover,
            self.variation.mutations,
        )
        both = child.crossed and first.number != second.number
        parents = (first.number, second.number) if both else (first.number,)
        return child.levels, Proposal(self.encoding.pack(child.levels), child.origin, parents)

    def _tournament(self, rng: np.random.Generator, elite: list[FrozenTrial]) -> FrozenTrial:
        # The elite is ordered by rank; within the front every point is as good a parent as any other.
        i, j = rng.integers(len(elite), size=2)
        return elite[min(i, j)] if rng.random() < 0.5 else elite[i]

    def _random(self, rng: np.random.Generator) -> tuple[Levels, Proposal]:
        levels = self.encoding.project(self.encoding.draw(rng))
        return levels, Proposal(self.encoding.pack(levels), "random")

    def _any_unseen(self, seen: set[str]) -> Proposal | None:
        # Only small spaces are ever used up, and those can be walked through.
        choices = self.encoding.highest - self.encoding.lowest + 1
        if choices**self.encoding.units > 100_000:
            return None
        for index in np.ndindex(*(choices,) * self.encoding.units):
            levels = self.encoding.project(np.array(index) + self.encoding.lowest)
            if self.encoding.pack(levels) not in seen and self._affordable(levels):
                return Proposal(self.encoding.pack(levels), "random")
        return None

    # Optuna asks for parameters; a packed genome has none.

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise ValueError(f"plans are packed genomes; there is no parameter {param_name!r} to suggest")
