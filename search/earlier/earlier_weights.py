"""Say what each earlier search was worth: its weight in the model of FID, as the trials came in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stepfront.arrays import Array
from stepfront.search.algorithm.encodings import Levels
from stepfront.search.algorithm.surrogate import PlanFeatures
from stepfront.search.algorithm.transfer import LEAST_LEAD, TransferModel
from stepfront.search.earlier.kept_tables import read_steps
from stepfront.search.earlier.usable_plans import scored_trials
from stepfront.search.pareto import domination_rank
from stepfront.search.records.settings_paths import FRONT_OF


@dataclass
class EarlierWeights:
    """Computes the weights of earlier searches after 4, 8, 16, ... and all trials of a search.

    `names` are the earlier searches that `features` predict, as `initial_plans` names them, and `kept` the directory of
    the tables of each.  Weights of fewer trials are computed once.
    """

    features: PlanFeatures
    unpack: Callable[[str], Levels]
    names: Sequence[str]
    kept: Mapping[str, Path]
    _known: dict[int, Array] = field(default_factory=dict)

    def facts(self, trials: pd.DataFrame) -> list[dict[str, Any]]:
        """Return one entry per earlier search: what it is, its number of trials, and its weight after numbers of ours.

        The weights of all, and that of the model without any, sum to 1.
        """
        complete = trials[(trials["state"] == "complete") & (trials["origin"] != "fit")]
        complete = complete.sort_values(["elapsed", "trial"])
        after = _numbers(len(complete)) if self.names else []
        weights = [self._weights(complete.iloc[:count]) for count in after]
        return [
            {
                "search": name.removeprefix(FRONT_OF),
                "name": self._name(name),
                "trials": len(scored_trials(self.kept[name])),
                "after": after,
                "weight": [round(float(row[1 + i]), 3) for row in weights],
            }
            for i, name in enumerate(self.names)
        ]

    def _weights(self, trials: pd.DataFrame) -> Array:
        if len(trials) not in self._known:
            scores = trials[["fid", "gflops"]].to_numpy(dtype=np.float64)
            model = TransferModel(len(self.names))
            levels = [self.unpack(genome) for genome in trials["genome"]]
            model.learn(self.features(levels), scores[:, 0], lambda most: domination_rank(scores, enough=most))
            self._known[len(trials)] = model.weights
        return self._known[len(trials)]

    def _name(self, name: str) -> str:
        steps = read_steps(self.kept[name])
        return steps.name if steps is not None else Path(name).parent.name


def _numbers(trials: int) -> list[int]:
    """Return 4, 8, 16, ... below the number of trials, and that number; none where it is below 4."""
    counts = [LEAST_LEAD * 2**i for i in range(30) if LEAST_LEAD * 2**i < trials]
    return [*counts, trials] if trials >= LEAST_LEAD else []
