"""Read earlier searches as this one needs them: their Pareto fronts as plans, and their trials as models of FID."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from stepfront.arrays import Array
from stepfront.errors import InputError
from stepfront.search.algorithm.surrogate import LEAST_TRIALS, EarlierModel, PlanFeatures
from stepfront.search.algorithm.transfer import fit_earlier_model
from stepfront.search.earlier.kept_tables import EarlierSteps, read_steps
from stepfront.search.earlier.mapped_plans import LogSnrOf, mapped_gap, mapped_levels
from stepfront.search.earlier.usable_plans import (
    earlier_directory,
    exact_levels,
    scored_trials,
    usable_plans,
    variants_of_row,
)
from stepfront.search.genomes.encodings import Encoding, Levels
from stepfront.search.genomes.sampler_genes import SamplerGenes
from stepfront.search.pareto import domination_rank
from stepfront.search.records.settings_paths import FRONT_OF
from stepfront.tables.parquet import read_table
from stepfront.tables.schema import FRONT
from stepfront.trainers.variant import has_marks

MODEL = "model"
"""The proxy of `screen.proxy` that uses models of earlier searches."""


def front_levels(directory: Path, count: int, encoding: Encoding, ours: LogSnrOf | None = None) -> list[Levels]:
    """Return up to `count` points of the Pareto front of the search in `directory`, evenly spread over its points.

    `ours` is the half log-SNR of this search's steps.  Raises InputError when its front table is missing or empty.
    """
    front = read_table(directory / FRONT)
    if not len(front):
        raise InputError(f"the Pareto front of the search in {directory} is empty; name a search with complete trials")
    front, steps = usable_plans(front, encoding), read_steps(directory)
    chosen = np.unique(np.linspace(0, len(front) - 1, min(count, len(front))).round().astype(int))
    return [_levels_of_row(front.iloc[i], encoding, steps, ours) for i in chosen]


def earlier_names(wanted: Mapping[str, int]) -> list[str]:
    """Return the names of earlier searches among the `wanted` initial plans, in their order."""
    return [name for name, count in wanted.items() if name.startswith(FRONT_OF) and count]


@dataclass(frozen=True)
class Taught:
    """What the trials of an earlier search teach this one: how many are usable, and why there is no model of them.

    `lacking` is empty where there is one.
    """

    usable: int
    trials: int
    lacking: str

    def sentence(self, name: str) -> str:
        """Return one line for the earlier search of that name among the initial plans."""
        search = name.removeprefix(FRONT_OF)
        rest = f"; its front alone is used, for {self.lacking}" if self.lacking else ""
        return f"{self.usable} of the {self.trials} trials of {search} can teach the model of FID{rest}"


def what_is_taught(
    wanted: Mapping[str, int], encoding: Encoding, proxy: str, directories: Mapping[str, Path] | None = None
) -> dict[str, Taught]:
    """Return what each earlier search among the `wanted` initial plans teaches a search with this `screen.proxy`."""
    found = {}
    for name in earlier_names(wanted):
        trials = scored_trials(earlier_directory(name, directories or {}))
        usable = len(usable_plans(trials, encoding))
        lacking = f"no model: {usable} of {LEAST_TRIALS} needed" if usable < LEAST_TRIALS else ""
        if proxy != MODEL:
            lacking = f"screen.proxy={proxy} uses no model"
        found[name] = Taught(usable, len(trials), lacking)
    return found


def earlier_models(
    wanted: Mapping[str, int],
    encoding: Encoding,
    gap: Array,
    directories: Mapping[str, Path] | None = None,
    ours: LogSnrOf | None = None,
) -> dict[str, EarlierModel]:
    """Return the model of each earlier search whose front is among the `wanted` initial plans, by its name there.

    Each is fitted to all complete trials of its search.  Searches of fewer than `LEAST_TRIALS` have none.
    """
    models = {}
    for name in earlier_names(wanted):
        directory = earlier_directory(name, directories or {})
        trials, steps = usable_plans(scored_trials(directory), encoding), read_steps(directory)
        if len(trials) < LEAST_TRIALS:
            continue
        scores = trials[["fid", "gflops"]].to_numpy(dtype=np.float64)
        plans = [_levels_of_row(row, encoding, steps, ours) for _, row in trials.iterrows()]
        theirs, here = _gaps(gap, encoding, steps, ours)
        known = PlanFeatures(encoding, theirs, coding="thermometer")
        asked = PlanFeatures(encoding, here, coding="thermometer")
        models[name] = fit_earlier_model(known, asked, plans, scores[:, 0], partial(domination_rank, scores, None))
    return models


def _gaps(gap: Array, encoding: Encoding, steps: EarlierSteps | None, ours: LogSnrOf | None) -> tuple[Array, Array]:
    """Return the gap tables of the earlier search and of this one [steps, levels], each as a share of its largest.

    Where the earlier one is unknown, or levels have marks, both are this one's.
    """
    here = _as_shares(gap)
    if steps is None or ours is None or not len(steps.gap) or encoding.marks:
        return here, here
    theirs = mapped_gap(steps.gap, steps.gap_half_log_snr, tuple(steps.widths), encoding, ours)
    return _as_shares(theirs), here


def _as_shares(gap: Array) -> Array:
    return gap / max(float(gap.max(axis=1).sum()), 1e-12)


def _levels_of_row(row: pd.Series, encoding: Encoding, steps: EarlierSteps | None, ours: LogSnrOf | None) -> Levels:
    """Return the levels of a row's plan, on its solver and grid where this search has them to choose.

    They are the nearest to its widths, or with marks exactly its own.
    """
    levels = exact_levels(variants_of_row(row), encoding) if has_marks(row["plan"]) else None
    if levels is None:
        times: Sequence[float] | None = row.get("times")
        theirs = steps.at(times) if steps is not None and times is not None and len(times) else None
        levels = mapped_levels(row["widths"], encoding, theirs, ours)
    if not isinstance(encoding, SamplerGenes):
        return levels
    return encoding.on_sampler(levels, str(row["solver"]), str(row.get("grid") or ""))
