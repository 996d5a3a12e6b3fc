"""Gather every private name of Optuna that stepfront uses.

Private names may change in any release, so pyproject.toml bounds Optuna's version.  An upgrade has this one file to
check.
"""

from __future__ import annotations

from typing import Any

from optuna._hypervolume import compute_hypervolume
from optuna.samplers.nsgaii._elite_population_selection_strategy import NSGAIIElitePopulationSelectionStrategy
from optuna.study._multi_objective import _fast_non_domination_rank as fast_non_domination_rank
from optuna.trial import FrozenTrial

__all__ = [
    # The survivors of NSGA-II by rank and crowding; public only inside NSGAIISampler, which samples parameters.
    "NSGAIIElitePopulationSelectionStrategy",
    # Exact hypervolume in any number of objectives; `assume_pareto` skips its search for dominated points.
    "compute_hypervolume",
    # Constrained ranks of arrays of scores (Deb 2002); the public API ranks whole trials only, and far more slowly.
    "fast_non_domination_rank",
    "set_storage_id",
    "storage_id",
    "storage_tables",
]


def storage_id(trial: FrozenTrial) -> int:
    """Return the id that a storage's write methods expect; the public `number` is another one."""
    return int(trial._trial_id)


def set_storage_id(trial: FrozenTrial, value: int) -> None:
    """Set the id that the storage gave to a trial; `create_trial` leaves a placeholder."""
    trial._trial_id = value


def storage_tables() -> Any:
    """Return the module with the tables of a storage in a database; the public storage only reads and writes them."""
    from optuna.storages._rdb import models  # imports SQLAlchemy

    return models
