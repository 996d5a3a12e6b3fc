"""Score plans from a published table of coefficients, in numpy alone.

The table is an additive and pairwise model of log FID, fitted to evaluated plans (`benchmarks/fit_surrogate.py`):

    log FID(plan) = constant + sum_i main[i, level_i] + sum_{i<j} pairs[i, j, level_i, level_j]

Its space is small enough that the true front is exact: `every` scores all plans.  Comparisons of search methods on it
take seconds, and need neither a supernet nor images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stepfront.arrays import Array
from stepfront.search.algorithm.encodings import Encoding, Levels, Stages
from stepfront.search.initial_plans.plan_kinds import PlanSource
from stepfront.search.pareto import hypervolume

TABLES = Path(__file__).parent / "surrogate_tables"
"""Folder of the published tables."""


@dataclass(frozen=True)
class SurrogateTable:
    """The table of one space of stages without skipped steps.

    `widths` [W] ascending, `unit_gflops` [units, W], `main` [units, W], `pairs` [units, units, W, W] (zero unless
    i < j), `gap` [steps, W], `half_log_snr` [steps].  `about` says what it was fitted to, and its held-out error.
    """

    widths: tuple[float, ...]
    steps: int
    unit_gflops: Array
    constant: float
    main: Array
    pairs: Array
    gap: Array
    half_log_snr: Array
    about: Mapping[str, Any]

    @cached_property
    def encoding(self) -> Encoding:
        """The encoding of the plans."""
        return Stages(self.steps, self.widths, False, len(self.main))

    def __call__(self, levels: Levels) -> tuple[float, float]:
        """Return (fid, gflops) of levels [units]."""
        fid, gflops = self.scores(np.asarray(levels)[None])[0]
        return float(fid), float(gflops)

    def scores(self, plans: Levels) -> Array:
        """Return FID and GFLOPs per image [N, 2] of plans [N, units]."""
        units = np.arange(plans.shape[1])
        logs = self.constant + self.main[units, plans].sum(axis=1)
        for i in units:
            for j in units[i + 1 :]:
                logs += self.pairs[i, j, plans[:, i], plans[:, j]]
        return np.column_stack([np.exp(logs), self.unit_gflops[units, plans].sum(axis=1)])

    def every(self) -> Array:
        """Return the scores [widths^units, 2] of all plans, in the order of their genomes."""
        units, count = self.main.shape
        genes = np.indices((count,) * units, dtype=np.int8).reshape(units, -1)
        return np.concatenate([self.scores(part.T) for part in np.array_split(genes, 64, axis=1)])

    def reference_point(self) -> list[float]:
        """Return the reference point as a search sets it: 1.1 x the worst uniform FID, 1.05 x the full cost."""
        uniform = self.scores(np.repeat(np.arange(len(self.widths))[:, None], len(self.main), axis=1))
        return [1.1 * float(uniform[:, 0].max()), 1.05 * float(uniform[:, 1].max())]

    def plan_source(self, seed: int) -> PlanSource:
        """Return what initial plans are made from, with this seed."""
        width_costs = self.unit_gflops.sum(axis=0) / self.steps
        return PlanSource(self.encoding, width_costs, self.half_log_snr, lambda: self.gap, seed)


def true_front(scores: Array) -> Array:
    """Return the scores [points, 2] that no other of `scores` [N, 2] dominates, cheapest first; N may be millions."""
    ordered = scores[np.lexsort((scores[:, 0], scores[:, 1]))]
    best_before = np.concatenate([[np.inf], np.minimum.accumulate(ordered[:, 0])[:-1]])
    return ordered[ordered[:, 0] < best_before]


def true_hypervolume(table: SurrogateTable) -> float:
    """Return the hypervolume of the front of all plans of the table."""
    return hypervolume(true_front(table.every()), table.reference_point(), only_front=True)


def read_surrogate_table(path: Path) -> SurrogateTable:
    """Return the table of a file that `write_surrogate_table` wrote."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    main = np.array(stored["main"])
    units, count = main.shape
    pairs = np.zeros((units, units, count, count))
    pairs[np.triu_indices(units, 1)] = np.array(stored["pairs"])
    arrays = {name: np.array(stored[name]) for name in ("unit_gflops", "gap", "half_log_snr")}
    return SurrogateTable(
        tuple(stored["widths"]), stored["steps"], constant=stored["constant"], main=main, pairs=pairs,
        about=stored["about"], **arrays,
    )  # fmt: skip


def write_surrogate_table(table: SurrogateTable, path: Path) -> None:
    """Write the table as JSON, each coefficient with six digits; pairs in the order (0, 1), (0, 2), ..."""
    pairs = table.pairs[np.triu_indices(len(table.main), 1)]
    stored = {
        "about": dict(table.about),
        "widths": list(table.widths),
        "steps": table.steps,
        "constant": _rounded(table.constant),
        **{name: _rounded(getattr(table, name)) for name in ("unit_gflops", "gap", "half_log_snr", "main")},
        "pairs": _rounded(pairs),
    }
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in stored.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _rounded(values: Any) -> Any:
    """Return nested lists of the values with six significant digits."""
    if np.ndim(values) == 0:
        return float(f"{float(values):.6g}")
    return [_rounded(value) for value in values]
