"""Say what each earlier search was worth: its weight in the model of FID, as the trials came in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stepfront.arrays import Array
from stepfront.search.algorithm.surrogate import PlanFeatures
from stepfront.search.algorithm.transfer import LEAST_LEAD, TransferModel
from stepfront.search.earlier.earlier_models import Taught
from stepfront.search.earlier.kept_tables import read_steps
from stepfront.search.genomes.encodings import Levels
from stepfront.search.pareto import domination_rank
from stepfront.search.records.settings_paths import FRONT_OF


@dataclass
class EarlierWeights:
    """Computes the weights of earlier searches after 4, 8, 16, ... and all trials of a search.

    `taught` are the earlier searches, as `initial_plans` names them; `features` predict those that lack nothing;
    `kept` is the directory of the tables of each.  Weights of fewer trials are computed once.
    """

    features: PlanFeatures
    unpack: Callable[[str], Levels]
    taught: Mapping[str, Taught]
    kept: Mapping[str, Path]
    _known: dict[int, Array] = field(default_factory=dict)

    def facts(self, trials: pd.DataFrame) -> list[dict[str, Any]]:
        """Return one entry per earlier search: what it is, its number of trials, and its weight after numbers of ours.

        The weights of all, and that of the model without any, sum to 1.  One that the screening has no model of has no
        weight, and the reason.
        """
        names = [name for name, one in self.taught.items() if not one.lacking]
        complete = trials[(trials["state"] == "complete") & (trials["origin"] != "fit")]
        complete = complete.sort_values(["elapsed", "trial"])
        after = _numbers(len(complete)) if names else []
        weights = [self._weights(complete.iloc[:count], len(names)) for count in after]
        columns = {name: [round(float(row[1 + i]), 3) for row in weights] for i, name in enumerate(names)}
        return [
            {
                "search": name.removeprefix(FRONT_OF),
                "name": self._name(name),
                "trials": one.trials,
                "usable": one.usable,
                "after": after if name in columns else [],
                "weight": columns.get(name, []),
                **({"lacking": one.lacking} if one.lacking else {}),
            }
            for name, one in self.taught.items()
        ]

    def _weights(self, trials: pd.DataFrame, earlier: int) -> Array:
        if len(trials) not in self._known:
            scores = trials[["fid", "gflops"]].to_numpy(dtype=np.float64)
            model = TransferModel(earlier)
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
