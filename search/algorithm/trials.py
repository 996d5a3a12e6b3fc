"""Define what a study and its sampler share: attributes of trials, proposals, the archive, the sampler's interface."""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

GENOME = "genome"
"""The trial attribute that holds the packed genome."""

ORIGIN, PARENTS = "origin", "parents"
"""The trial attributes that say which operator made the genome, and from which trials."""

LEARNT = "learnt"
"""The trial attribute that holds the digest of a fitted sampler, or of weights; most trials have none."""

RESULT = "result"
"""The trial attribute that holds the recorded result: scores, or the reason for a failure."""


@dataclass(frozen=True)
class Proposal:
    """A genome to evaluate, the operator that made it, and the numbers of the trials that it descends from."""

    genome: str
    origin: str
    parents: tuple[int, ...] = field(default=())
    learnt: str = ""
    """Digest of the sampler or the weights that were fitted to the plan; empty where it runs on the search's own."""


def is_fit(trial: FrozenTrial) -> bool:
    """Return whether a trial's plan runs on a sampler or weights that were fitted to it, not on the search's own."""
    return LEARNT in trial.user_attrs


def result_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return the recorded result of a trial; empty while it runs."""
    return dict(trial.user_attrs.get(RESULT, {}))


def violation_of(trial: FrozenTrial) -> float:
    """Return by how much a complete trial breaks its constraints, summed; 0 where it keeps them."""
    return sum(max(0.0, excess) for excess in trial.constraints.values())


class TrialArchive:
    """What a proposal depends on: all genomes, the complete trials in the order of their results, plans under way."""

    def __init__(self) -> None:
        self.fill(set(), [])

    def fill(self, genomes: set[str], complete: Iterable[FrozenTrial], under_way: Iterable[FrozenTrial] = ()) -> None:
        """Replace the content by these genomes, complete trials and trials under way."""
        self.genomes = genomes
        self._under_way = {trial.number: trial for trial in under_way}
        self.complete: list[FrozenTrial] = []
        self._values, self._violations = array("d"), array("d")
        for trial in complete:
            self.add(trial)

    def add(self, trial: FrozenTrial) -> None:
        """Add a complete trial."""
        self.complete.append(trial)
        self._values.extend(trial.values)
        self._violations.append(violation_of(trial))

    def begin(self, trial: FrozenTrial) -> None:
        """Count a trial as under way: it has a plan, and no result yet."""
        self._under_way[trial.number] = trial

    def end(self, trial: FrozenTrial) -> None:
        """Count a trial as under way no more."""
        self._under_way.pop(trial.number, None)

    @property
    def under_way(self) -> Mapping[int, FrozenTrial]:
        """The trials that workers evaluate or that wait for another attempt, by number, in the order of proposals."""
        return self._under_way

    @property
    def scores(self) -> NDArray[np.float64]:
        """Objectives of the complete trials, [N, objectives]."""
        values = np.array(self._values)
        return values.reshape(len(self.complete), -1) if self.complete else values

    @property
    def violations(self) -> NDArray[np.float64]:
        """Summed violation of the constraints by each complete trial, [N]."""
        return np.array(self._violations)


class GenomeSampler(BaseSampler):
    """An Optuna sampler that proposes packed genomes; a trial of it has no parameters."""

    initial: Sequence[Proposal]
    """Proposals that come before all others, in this order."""

    population: int
    """Number of trials that count as one generation."""

    @abstractmethod
    def propose(self, study: Study, archive: TrialArchive, number: int) -> Proposal | None:
        """Return the proposal of this number; None when every plan of the space has been proposed.

        With one plan under way it depends on its arguments and the sampler's seed alone, so a resumed search proposes
        the same plans.  With several, it also depends on what was offered since the last result.
        """

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return no parameters, as Optuna's interface requires."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return no parameters, as Optuna's interface requires."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Raise ValueError: `trial.suggest_*` has no meaning for packed genomes."""
        raise ValueError(f"a plan is one packed genome; it has no parameter {param_name!r} to suggest")
