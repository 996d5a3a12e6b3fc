"""Score plans from a published model of FID.

The model is additive and pairwise, of log FID, and fitted to evaluated plans (`benchmarks/fit_surrogate.py`):

    log FID(plan) = constant + sum_i main[i, level_i] + sum_{i<j} pairs[i, j, level_i, level_j]

Of ten genes all plans are scored, so that the true front is exact.  A table of more genes keeps the best front that is
known (`best_known_front`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.plan_table import PlanTable, read_fields, rounded, stored_fields, true_front, write_json
from stepfront.arrays import Array
from stepfront.search.genomes.encodings import Levels
from stepfront.search.pareto import hypervolume

TABLES = Path(__file__).parent / "surrogate_tables"
"""Folder of the published tables."""

MOST_ENUMERATED = 4**10
"""Plans of the largest space whose plans are all scored."""


@dataclass(frozen=True)
class SurrogateTable(PlanTable):
    """The model of one space: `main` [units, W], and `pairs` [units, units, W, W], which are zero unless i < j.

    `front_plans` [points, units] are those of the best known front, where there are too many plans to score them all.
    """

    constant: float
    main: Array
    pairs: Array
    front_plans: Levels | None = None

    def log_fid(self, plans: Levels) -> Array:
        """Return log FID [N] of plans [N, units]."""
        units = np.arange(plans.shape[1])
        logs = self.constant + self.main[units, plans].sum(axis=1)
        for i in units:
            for j in units[i + 1 :]:
                logs += self.pairs[i, j, plans[:, i], plans[:, j]]
        return np.asarray(logs)

    def front(self) -> Array:
        """Return the scores [points, 2] of the true front, or of the best one that is known, cheapest first."""
        if self.front_plans is not None:
            return true_front(self.scores(self.front_plans))
        if self.count > MOST_ENUMERATED:
            raise ValueError(f"{self.count:,} plans are too many to score them all, and no front of them is stored")
        return super().front()


def best_known_front(table: SurrogateTable, starts: Levels) -> Levels:
    """Return the plans [points, units] of a front that no change of one or two genes improves, cheapest first.

    Pareto local search (Paquete et al. 2004) from the plans `starts` [N, units]: all plans that differ from a point of
    the front in one or two genes are scored, until every point has been looked around.  It is no proof that the front
    is the true one.
    """
    plans, scores = _least(starts, table.scores(starts))
    looked: set[bytes] = set()
    while new := [levels for levels in plans if levels.tobytes() not in looked]:
        looked.update(levels.tobytes() for levels in new)
        for levels in new:
            around = np.concatenate(list(_around(levels, len(table.widths))))
            plans, scores = _least(np.vstack([plans, around]), np.vstack([scores, table.scores(around)]))
    return plans


def _around(levels: Levels, count: int) -> Iterator[Levels]:
    """Yield the plans that differ from `levels` [units] in one or two genes."""
    genes = np.indices((count, count)).reshape(2, -1).T
    for i in range(len(levels)):
        for j in range(i + 1, len(levels)):
            plans = np.repeat(levels[None], len(genes), axis=0)
            plans[:, [i, j]] = genes
            yield plans


def _least(plans: Levels, scores: Array) -> tuple[Levels, Array]:
    """Return the plans [points, units] of the front and their scores [points, 2], cheapest first, each score once."""
    order = np.lexsort((scores[:, 0], scores[:, 1]))
    best_before = np.concatenate([[np.inf], np.minimum.accumulate(scores[order, 0])[:-1]])
    kept = order[scores[order, 0] < best_before]
    return plans[kept], scores[kept]


def true_hypervolume(table: PlanTable) -> float:
    """Return the hypervolume of the table's front."""
    return hypervolume(table.front(), table.reference_point(), only_front=True)


def read_surrogate_table(path: Path) -> SurrogateTable:
    """Return the table of a file that `write_surrogate_table` wrote."""
    return _of_stored(json.loads(path.read_text(encoding="utf-8")))


def as_stored(table: SurrogateTable) -> SurrogateTable:
    """Return the table as it is read when it was written, with coefficients of six digits."""
    return _of_stored(json.loads(json.dumps(_stored(table))))


def _of_stored(stored: Mapping[str, Any]) -> SurrogateTable:
    main = np.array(stored["main"])
    units, count = main.shape
    pairs = np.zeros((units, units, count, count))
    pairs[np.triu_indices(units, 1)] = np.array(stored["pairs"])
    front = np.array(stored["front"]) if "front" in stored else None
    return SurrogateTable(**read_fields(stored), constant=stored["constant"], main=main, pairs=pairs, front_plans=front)


def write_surrogate_table(table: SurrogateTable, path: Path) -> None:
    """Write the table as JSON, each coefficient with six digits; pairs in the order (0, 1), (0, 2), ..."""
    write_json(_stored(table), path)


def _stored(table: SurrogateTable) -> dict[str, Any]:
    coefficients = {
        "constant": table.constant,
        "main": table.main,
        "pairs": table.pairs[np.triu_indices(table.units, 1)],
    }
    stored = stored_fields(table) | {name: rounded(value) for name, value in coefficients.items()}
    if table.front_plans is not None:
        stored["front"] = table.front_plans.tolist()
    return stored
