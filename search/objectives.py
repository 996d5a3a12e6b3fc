"""Say which columns a search minimises, and turn those of which higher values are better around."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stepfront.arrays import Array
from stepfront.search.settings.scoring import parse_constraint

if TYPE_CHECKING:
    from stepfront.search.config import RunSettings

COSTS = ("gflops", "latency_ms")

ROUNDING = 1e-9
"""Share of a cost below which two sums of the same numbers may differ."""


@dataclass(frozen=True)
class Objectives:
    """The objectives of a search by name, FID and costs first, and which of them are better when `higher`."""

    names: tuple[str, ...]
    higher: frozenset[str] = frozenset()

    @classmethod
    def of_settings(cls, settings: RunSettings) -> Objectives:
        """Return the objectives of a search's settings."""
        scores = [score for score in settings.scores if score.use == "objective"]
        names = (*settings.evaluation.objectives, *(score.name for score in scores))
        return cls(names, frozenset(score.name for score in scores if score.goal == "higher"))

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Objectives:
        """Return the objectives in search.json."""
        scores = facts.get("scores") or []
        higher = frozenset(str(score["name"]) for score in scores if score.get("goal") == "higher")
        return cls(tuple(facts.get("objectives", ["fid", "gflops"])), higher)

    @property
    def cost(self) -> str:
        """The cost that the front is ordered by."""
        return self.names[1]

    @property
    def scores(self) -> tuple[str, ...]:
        """The objectives that are a user's own scores."""
        return tuple(name for name in self.names if name not in ("fid", *COSTS))

    def sign(self, name: str) -> int:
        """Return -1 where higher values are better, else 1: the value times this is minimised."""
        return -1 if name in self.higher else 1

    def others(self, points: Array) -> Array:
        """Return the columns of `points` [N, M] beside FID and the cost that the front is ordered by: [N, M - 2]."""
        kept: Array = points[:, [name not in ("fid", self.cost) for name in self.names]]
        return kept

    def minimised(self, table: pd.DataFrame, columns: Sequence[str] | None = None) -> Array:
        """Return the rows' objectives [N, M] as they are minimised; `columns` are other columns with their values."""
        values = table[list(columns or self.names)].to_numpy(dtype=np.float64)
        return values * np.array([self.sign(name) for name in self.names], dtype=np.float64)

    def bounds(self, constraints: Sequence[str]) -> Array:
        """Return the interval [M, 2] that constraints leave each objective, as it is minimised; infinite without one.

        A constraint on another column bounds none of them.
        """
        ends = np.tile([-np.inf, np.inf], (len(self.names), 1))
        for name, sign, bound in map(parse_constraint, constraints):
            if name in self.names:
                row, upper = self.names.index(name), (sign == "<=") == (self.sign(name) > 0)
                limit = self.sign(name) * bound + (1 if upper else -1) * ROUNDING * abs(bound)
                ends[row] = (
                    (ends[row, 0], min(ends[row, 1], limit)) if upper else (max(ends[row, 0], limit), ends[row, 1])
                )
        return ends


def excess(value: float, sign: str, bound: float) -> float:
    """Return by how much a value breaks a constraint `<= bound` or `>= bound`; 0 or less where it keeps it.

    Equal sums in another order are equal to rounding only, so a value within rounding of the bound is at the bound.
    """
    beyond = value - bound if sign == "<=" else bound - value
    return 0.0 if abs(beyond) <= ROUNDING * abs(bound) else beyond


def violations(table: pd.DataFrame, constraints: Sequence[str]) -> Array:
    """Return by how much each row breaks constraints such as `gflops <= 2.0`, summed, [N]; 0 where it keeps all.

    It is NaN where a value is missing.
    """
    total = np.zeros(len(table))
    for name, sign, bound in map(parse_constraint, constraints):
        values = table[name].to_numpy(dtype=np.float64) if name in table else np.full(len(table), np.nan)
        total += np.maximum(0.0, [excess(value, sign, bound) for value in values])
    return total
