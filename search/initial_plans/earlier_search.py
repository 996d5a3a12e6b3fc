"""Start from an earlier search: map its Pareto front to initial plans, and learn from its trials.

Widths and steps of the earlier search may differ; its plans are mapped to the nearest ones of this search's encoding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from stepfront.arrays import Array
from stepfront.errors import InputError
from stepfront.search.algorithm.encodings import Encoding, EvenStages, Levels
from stepfront.search.algorithm.sampler_genes import SamplerGenes
from stepfront.search.algorithm.surrogate import LEAST_TRIALS, EarlierModel, PlanFeatures, fit_earlier_model
from stepfront.search.pareto import domination_rank
from stepfront.tables.parquet import read_table
from stepfront.tables.schema import FRONT, TRIALS

FRONT_OF = "front:"
"""`initial_plans` names an earlier search as `front:SEARCH`."""


def earlier_directory(name: str, directories: Mapping[str, Path]) -> Path:
    """Return the directory of the tables of `front:SEARCH`: from `directories`, else SEARCH itself."""
    return directories.get(name, Path(name.removeprefix(FRONT_OF)))


def front_levels(directory: Path, count: int, encoding: Encoding) -> list[Levels]:
    """Return up to `count` points of the Pareto front of the search in `directory`, evenly spread over its points.

    Raises InputError when its front table is missing or empty.
    """
    front = read_table(directory / FRONT)
    if not len(front):
        raise InputError(f"the Pareto front of the search in {directory} is empty; name a search with complete trials")
    front = _comparable(front, encoding)
    chosen = np.unique(np.linspace(0, len(front) - 1, min(count, len(front))).round().astype(int))
    return [_levels_of_row(front.iloc[i], encoding) for i in chosen]


def earlier_models(
    wanted: Mapping[str, int], encoding: Encoding, gap: Array, directories: Mapping[str, Path] | None = None
) -> tuple[EarlierModel, ...]:
    """Return one model per earlier search whose front is among the `wanted` initial plans.

    Each is fitted on all complete trials of its search.  Searches of fewer than `LEAST_TRIALS` have none.
    """
    models = []
    for name in wanted:
        if name.startswith(FRONT_OF) and wanted[name]:
            trials = read_table(earlier_directory(name, directories or {}) / TRIALS)
            trials = trials[(trials["state"] == "complete") & (trials["origin"] != "fit")]
            trials = _comparable(trials, encoding)
            if len(trials) < LEAST_TRIALS:
                continue
            scores = trials[["fid", "gflops"]].to_numpy(dtype=np.float64)
            plans = [_levels_of_row(row, encoding) for _, row in trials.iterrows()]
            ranks = partial(domination_rank, scores, None)
            models.append(fit_earlier_model(PlanFeatures(encoding, gap), plans, scores[:, 0], ranks))
    return tuple(models)


def mapped_levels(widths: Sequence[float], encoding: Encoding) -> Levels:
    """Return the nearest levels [units] of this encoding to the plan of another search, given as widths per step."""
    theirs = np.asarray(widths, dtype=np.float64)
    if isinstance(encoding.of_widths, EvenStages):
        return encoding.levels_of(tuple(theirs))  # with about as many steps
    # A step of ours takes the width of theirs at the same share of the way from noise to image.
    at = ((np.arange(encoding.steps) + 0.5) / encoding.steps * len(theirs)).astype(int)
    return encoding.levels_of(tuple(theirs[at]))


def _levels_of_row(row: pd.Series, encoding: Encoding) -> Levels:
    """Return the nearest levels to a row's plan, on its solver and grid where this search has them to choose."""
    levels = mapped_levels(row["widths"], encoding)
    if not isinstance(encoding, SamplerGenes):
        return levels
    return encoding.on_sampler(levels, str(row["solver"]), str(row.get("grid") or ""))


def _comparable(plans: pd.DataFrame, encoding: Encoding) -> pd.DataFrame:
    """Return the plans whose differences the encoding can express.

    These are all plans without marks where the number of steps is free, and otherwise those with most steps.  By its
    widths alone a plan with marks would be another plan, with another FID.
    """
    plans = plans[~plans["plan"].astype(str).str.contains("[ru]")]
    lengths = plans["widths"].map(len)
    return plans if isinstance(encoding.of_widths, EvenStages) else plans[lengths == lengths.max()]
