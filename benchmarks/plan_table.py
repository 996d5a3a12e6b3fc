"""Score plans from a published table, in numpy alone.

Comparisons of search methods on a table take seconds, and need neither a supernet nor images.  An enumerated table has
the measured FID of every plan; a surrogate table (benchmarks/surrogate_table.py) has a model of it.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stepfront.arrays import Array
from stepfront.search.genomes.encodings import Encoding, Levels, Stages
from stepfront.search.initial_plans.plan_kinds import PlanSource

ENUMERATED = Path(__file__).parent / "enumerated_tables"
"""Folder of the published tables of measured plans."""

COST_DIGITS = 10
"""Decimals of a plan's GFLOPs: more than a table stores of a unit's, and fewer than rounding errors reach."""


@dataclass(frozen=True)
class PlanTable(ABC):
    """The table of one space of stages without skipped steps.

    `widths` [W] ascending, `unit_gflops` [units, W] per image, `gap` [steps, W], `half_log_snr` [steps].  `about` says
    what it was made of.
    """

    widths: tuple[float, ...]
    steps: int
    unit_gflops: Array
    gap: Array
    half_log_snr: Array
    about: Mapping[str, Any]

    @property
    def units(self) -> int:
        """Genes of a plan."""
        return len(self.unit_gflops)

    @property
    def count(self) -> int:
        """Plans of the space."""
        return len(self.widths) ** self.units

    @cached_property
    def encoding(self) -> Encoding:
        """The encoding of the plans."""
        return Stages(self.steps, self.widths, False, self.units)

    @abstractmethod
    def log_fid(self, plans: Levels) -> Array:
        """Return log FID [N] of plans [N, units]."""

    def __call__(self, levels: Levels) -> tuple[float, float]:
        """Return (fid, gflops) of levels [units]."""
        fid, gflops = self.scores(np.asarray(levels)[None])[0]
        return float(fid), float(gflops)

    def scores(self, plans: Levels) -> Array:
        """Return FID and GFLOPs per image [N, 2] of plans [N, units]."""
        gflops = self.unit_gflops[np.arange(self.units), plans].sum(axis=1)
        # Plans with as many units of each width cost the same, in whatever order their costs are added up.
        return np.column_stack([np.exp(self.log_fid(plans)), gflops.round(COST_DIGITS)])

    def every(self) -> Array:
        """Return the scores [widths^units, 2] of all plans, in the order of their genomes."""
        genes = np.indices((len(self.widths),) * self.units, dtype=np.int8).reshape(self.units, -1)
        return np.concatenate([self.scores(part.T) for part in np.array_split(genes, 64, axis=1)])

    def front(self) -> Array:
        """Return the scores [points, 2] of the true front, cheapest first."""
        return true_front(self.every())

    def reference_point(self) -> list[float]:
        """Return the reference point as a search sets it: 1.1 x the worst uniform FID, 1.05 x the full cost."""
        uniform = self.scores(np.repeat(np.arange(len(self.widths))[:, None], self.units, axis=1))
        return [1.1 * float(uniform[:, 0].max()), 1.05 * float(uniform[:, 1].max())]

    def plan_source(self, seed: int) -> PlanSource:
        """Return what initial plans are made from, with this seed."""
        width_costs = self.unit_gflops.sum(axis=0) / self.steps
        return PlanSource(self.encoding, width_costs, self.half_log_snr, lambda: self.gap, seed)


@dataclass(frozen=True)
class EnumeratedTable(PlanTable):
    """The measured FID of every plan, `fids` [widths^units] in the order of their genomes.

    `paired` [widths^units] is the mean squared difference of the first images from those at full width.
    """

    fids: Array
    paired: Array

    def log_fid(self, plans: Levels) -> Array:
        """Return log FID [N] of plans [N, units]."""
        places = np.ravel_multi_index(tuple(np.asarray(plans).T), (len(self.widths),) * self.units)
        return np.asarray(np.log(self.fids[places]))


def true_front(scores: Array) -> Array:
    """Return the scores [points, 2] that no other of `scores` [N, 2] dominates, cheapest first; N may be millions."""
    ordered = scores[np.lexsort((scores[:, 0], scores[:, 1]))]
    best_before = np.concatenate([[np.inf], np.minimum.accumulate(ordered[:, 0])[:-1]])
    return ordered[ordered[:, 0] < best_before]


def stored_fields(table: PlanTable) -> dict[str, Any]:
    """Return the fields that all tables have, as they are stored."""
    arrays = {name: rounded(getattr(table, name)) for name in ("unit_gflops", "gap", "half_log_snr")}
    return {"about": dict(table.about), "widths": list(table.widths), "steps": table.steps, **arrays}


def read_fields(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that all tables have, of what `stored_fields` returned."""
    arrays = {name: np.array(stored[name]) for name in ("unit_gflops", "gap", "half_log_snr")}
    return {"widths": tuple(stored["widths"]), "steps": stored["steps"], "about": stored["about"], **arrays}


def write_json(stored: Mapping[str, Any], path: Path) -> None:
    """Write the fields of a table, one on each line."""
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in stored.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def rounded(values: Any) -> Any:
    """Return nested lists of the values with six significant digits."""
    if np.ndim(values) == 0:
        return float(f"{float(values):.6g}")
    return [rounded(value) for value in values]


def read_enumerated_table(path: Path) -> EnumeratedTable:
    """Return the table of a file that `write_enumerated_table` wrote."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    return EnumeratedTable(**read_fields(stored), fids=np.array(stored["fids"]), paired=np.array(stored["paired"]))


def write_enumerated_table(table: EnumeratedTable, path: Path) -> None:
    """Write the table as JSON, each figure with six digits."""
    write_json({**stored_fields(table), "fids": rounded(table.fids), "paired": rounded(table.paired)}, path)
