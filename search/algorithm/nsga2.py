"""Propose plans by NSGA-II over packed genomes.

Ranking, crowding, elite selection and constrained domination are Optuna's.  Four things differ from its NSGAIISampler:

- A genome is one trial attribute, not one parameter per gene.
- Parents are the elite of *all* complete trials (steady state).  Initial plans, earlier results and resumed trials
  count at once, and no worker waits for a generation.
- Crossover and mutation keep a plan's runs of one width (variation.py).
- No plan is proposed twice.

The random state is derived from (seed, proposal number), so a resumed search needs none from before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from threading import Lock

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial
from threadpoolctl import ThreadpoolController

from stepfront.search.algorithm.trials import GENOME, GenomeSampler, Proposal, TrialArchive
from stepfront.search.algorithm.variation import changed_candidates, count_neighbours, make_child
from stepfront.search.config import VariationSettings
from stepfront.search.genomes.candidates import Candidate, Candidates, Point
from stepfront.search.genomes.encodings import Encoding, Levels, Plans
from stepfront.search.optuna_internals import NSGAIIElitePopulationSelectionStrategy
from stepfront.search.pareto import domination_rank, front_indices
from stepfront.search.records.settings_paths import FRONT_OF

_TRIES = 200

LARGEST_POOL = 400
"""Candidates that a packet's plans are chosen among at which no more are added: each is looked at for each plan."""

Screen = Callable[[Plans], int]
"""Return the index of the child to evaluate among several, [N, units]."""

Lead = Callable[[Plans], int | None]
"""Return the index of the plan to evaluate while earlier searches are trusted; None where they are not."""


_ONE_AT_A_TIME = Lock()
"""The number of threads is the process's: of two overlapping proposals, the second would keep the first one's."""


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


class BlockNSGAII(GenomeSampler):
    """Propose the `initial` plans in their order, then children of the elite that are `affordable`.

    With a `screen`, `offspring` children are made per proposal and the screen chooses one.  It also chooses among up to
    `neighbours` plans one change away from the Pareto front.  From the chosen plan, the screen climbs: it compares the
    plan with up to as many plans one change away from it, and moves to the best of them, `climb` times at most.

    With a `lead`, what earlier searches learnt chooses in place of the initial plans' order, among these and the
    neighbours of the front.  Where it does not choose, plans of earlier fronts come last.
    """

    def __init__(
        self,
        encoding: Encoding,
        variation: VariationSettings,
        seed: int,
        initial: Sequence[Proposal] = (),
        offspring: int = 1,
        screen: Screen | None = None,
        affordable: Callable[[Levels], bool] | None = None,
        neighbours: int = 0,
        lead: Lead | None = None,
        climb: int = 0,
    ) -> None:
        self.encoding, self.variation, self.seed = encoding, variation, seed
        self.initial, self.population = list(initial), variation.population
        self.offspring, self.screen, self._affordable = offspring, screen, affordable
        self._most_neighbours, self._lead, self._most_climb = neighbours, lead, climb
        own = [plan.origin for plan in self.initial if not plan.origin.startswith(FRONT_OF)]
        self._first_generation = len(own) if set(own) - {"uniform"} else len(self.initial)
        self._select_elite = NSGAIIElitePopulationSelectionStrategy(population_size=variation.population)
        self._elite: tuple[int, list[FrozenTrial]] = (-1, [])
        self._front: tuple[int, dict[int, Point]] = (-1, {})
        self._pool: tuple[int, dict[str, Candidate]] = (-1, {})
        self._unpack = lru_cache(maxsize=4 * variation.population)(encoding.unpack)

    def propose(self, study: Study, archive: TrialArchive, number: int) -> Proposal | None:
        """Return the proposal of this number; None when every plan of the space has been proposed."""
        # The model's matrices are small.  Threads of BLAS that wait for each other spin, and beside busy workers a
        # proposal takes ten times as long with two of them as with one.
        with _ONE_AT_A_TIME, _blas().limit(limits=1, user_api="blas"):
            return self._proposed(study, archive, number)

    def _proposed(self, study: Study, archive: TrialArchive, number: int) -> Proposal | None:
        seen = archive.genomes
        rng = np.random.default_rng([self.seed, number])
        if (first := self._initial_plan(rng, archive)) is not None:
            return first
        children = self._candidates_of(rng, study, archive)
        if not children:
            return self._any_unseen(seen)
        if self.screen is None or len(children) == 1:
            return _proposal(children[0])
        return _proposal(self._climbed(rng, children[self.screen(Candidates(children))], self.screen, seen))

    def _candidates_of(self, rng: np.random.Generator, study: Study, archive: TrialArchive) -> list[Candidate]:
        """Return new children of the elite, and neighbours of the front where they are screened.

        While other plans are under way and no result has come, those that the proposals before left are offered again,
        behind one new child: the plans of a packet are chosen among the same, and among those that climbs compared.
        The first stays a draw of variation, for screens that make no choice.
        """
        count, seen = len(archive.complete), archive.genomes
        # Before the first result, plans under way are better parents than none.
        parents = self.elite(study, archive) or list(archive.under_way.values())
        left = []
        if archive.under_way and self._pool[0] == count:
            left = [one for genome, one in self._pool[1].items() if genome not in seen]
        if len(left) > self.offspring:
            children = self._children(rng, parents, seen, 1)
            new = {child.genome for child in children}
            children += [one for one in left if one.genome not in new]
        else:
            children = self._children(rng, parents, seen, self.offspring)
            if self.screen is not None and self._most_neighbours:
                children += self._around_front(rng, archive, {child.genome for child in children})
        if self.screen is not None:
            self._pool = count, {child.genome: child for child in children}
        return children

    def _initial_plan(self, rng: np.random.Generator, archive: TrialArchive) -> Proposal | None:
        """Return the next plan of the first generation; None after it.

        Led by earlier searches, it has as many plans as it would have without them, if it would have more than uniform
        ones.
        """
        seen = archive.genomes
        left = [plan for plan in self.initial if plan.genome not in seen]
        if self._lead is None or not left or left[0].origin == "uniform":
            return left[0] if left else None
        if len(seen) >= self._first_generation:
            return None
        unpack = self.encoding.unpack
        plans = [Candidate.of(plan.genome, plan.origin, unpack(plan.genome), plan.parents) for plan in left]
        plans += self._around_front(rng, archive, {plan.genome for plan in left}) if archive.complete else []
        chosen = self._lead(Candidates(plans))
        if chosen is not None:
            return left[chosen] if chosen < len(left) else _proposal(plans[chosen])
        return min(left, key=lambda plan: plan.origin.startswith(FRONT_OF))

    def elite(self, study: Study, archive: TrialArchive) -> list[FrozenTrial]:
        """Return the best complete trials by Optuna's rank and crowding, whichever operator made them."""
        count = len(archive.complete)
        if self._elite[0] != count:
            self._elite = (count, self._select_elite(study, self._candidates(archive)) if count else [])
        return self._elite[1]

    def _candidates(self, archive: TrialArchive) -> list[FrozenTrial]:
        """Return the trials of the best ranks, as many complete ranks as fill the elite.

        Optuna chooses the same among these as among all trials, and takes far longer over all.
        """
        if len(archive.complete) <= self.population:
            return list(archive.complete)
        ranks = domination_rank(archive.scores, archive.violations, enough=self.population)
        return [archive.complete[i] for i in np.flatnonzero(ranks <= np.sort(ranks)[self.population - 1])]

    def _children(
        self, rng: np.random.Generator, elite: list[FrozenTrial], seen: set[str], most: int
    ) -> list[Candidate]:
        """Return new affordable children, one or, where they are screened, up to `most`."""
        children: list[Candidate] = []
        made: set[str] = set()
        for attempt in range(_TRIES):
            # After many repeats the neighbourhood is exhausted: draw from the complete space.
            child = self._random(rng) if not elite or attempt > _TRIES // 2 else self._child(rng, elite)
            if child.genome in seen or child.genome in made or not self._is_affordable(child):
                continue
            made.add(child.genome)
            children.append(child)
            screened = self.screen is not None and child.origin != "random"
            if len(children) >= (most if screened else 1):
                break
        return children

    def _is_affordable(self, candidate: Candidate) -> bool:
        return self._affordable is None or self._affordable(candidate.levels)

    def _around_front(self, rng: np.random.Generator, archive: TrialArchive, others: set[str]) -> list[Candidate]:
        """Return new affordable plans one change away from a point of the front, a random part of too many."""
        count, points = self._front
        if count != len(archive.complete):
            front = [archive.complete[i] for i in front_indices(archive.scores, archive.violations)]
            points = {trial.number: points.get(trial.number) or self._point_of(trial) for trial in front}
            self._front = len(archive.complete), points
        return self._neighbours(rng, list(points.values()), "neighbour", archive.genomes, others)

    def _point_of(self, trial: FrozenTrial) -> Point:
        genome = trial.user_attrs[GENOME]
        return Point(genome, self._unpack(genome), (trial.number,))

    def _climbed(self, rng: np.random.Generator, start: Candidate, screen: Screen, seen: set[str]) -> Candidate:
        """Return the plan that single changes lead to, from the start on, each the one that the screen prefers."""
        at = start
        for _ in range(self._most_climb):
            point = Point(at.genome, at.levels, at.point.parents)
            near = self._neighbours(rng, [point], "climb", seen, {at.genome})
            if len(self._pool[1]) < LARGEST_POOL:
                self._pool[1].update((one.genome, one) for one in near if one.genome not in self._pool[1])
            chosen = screen(Candidates([at, *near]))
            if chosen == 0:
                break
            at = near[chosen - 1]
        return at

    def _neighbours(
        self,
        rng: np.random.Generator,
        points: Sequence[Point],
        origin: str,
        seen: set[str],
        others: set[str],
    ) -> list[Candidate]:
        """Return affordable plans one change away from points; of many a random part.

        Plans that were `seen`, and the `others` that are screened beside these, are left out.
        """
        each = count_neighbours(self.encoding)
        count, most = len(points) * each, self._most_neighbours
        changes = np.sort(rng.choice(count, most, replace=False)) if count > most else np.arange(count)
        if not len(changes):
            return []
        of = [points[i] for i in (changes // each).tolist()]
        found: dict[str, Candidate] = {}
        for one in changed_candidates(of, changes % each, origin, self.encoding):
            genome = one.genome
            if not (genome in seen or genome in others or genome in found) and self._is_affordable(one):
                found[genome] = one
        return list(found.values())

    def _child(self, rng: np.random.Generator, elite: list[FrozenTrial]) -> Candidate:
        first, second = self._tournament(rng, elite), self._tournament(rng, elite)
        child = make_child(
            rng,
            self._unpack(first.user_attrs[GENOME]),
            self._unpack(second.user_attrs[GENOME]),
            self.encoding,
            self.variation.crossover,
            self.variation.mutations,
        )
        both = child.crossed and first.number != second.number
        parents = (first.number, second.number) if both else (first.number,)
        return Candidate.of(self.encoding.pack(child.levels), child.origin, child.levels, parents)

    def _tournament(self, rng: np.random.Generator, elite: list[FrozenTrial]) -> FrozenTrial:
        # The elite is ordered by rank; within the front every point is as good a parent as any other.
        i, j = int(rng.integers(len(elite))), int(rng.integers(len(elite)))  # half the time of both in one array
        return elite[min(i, j)] if rng.random() < 0.5 else elite[i]

    def _random(self, rng: np.random.Generator) -> Candidate:
        levels = self.encoding.project(self.encoding.draw(rng))
        return Candidate.of(self.encoding.pack(levels), "random", levels)

    def _any_unseen(self, seen: set[str]) -> Proposal | None:
        # Only small spaces are ever exhausted, and those can be enumerated.
        choices, units = self.encoding.highest - self.encoding.lowest + 1, self.encoding.units
        if choices**units * math.prod(self.encoding.choices) > 100_000:
            return None
        for index in np.ndindex(*(choices,) * units, *self.encoding.choices):
            levels = np.array(index)
            levels[:units] += self.encoding.lowest
            levels = self.encoding.project(levels)
            candidate = Candidate.of(self.encoding.pack(levels), "random", levels)
            if candidate.genome not in seen and self._is_affordable(candidate):
                return _proposal(candidate)
        return None


def _proposal(candidate: Candidate) -> Proposal:
    return Proposal(candidate.genome, candidate.origin, candidate.point.parents)
