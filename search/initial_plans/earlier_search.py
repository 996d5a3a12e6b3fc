"""Start from an earlier search: map its Pareto front to initial plans, and learn from its trials.

Widths and steps of the earlier search may differ; its plans are mapped to the nearest ones of this search's encoding.
Plans with marks are taken where the encoding has exactly them, and left out elsewhere: with its widths alone such a
plan would be another plan, with another FID.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from stepfront.arrays import Array
from stepfront.errors import InputError
from stepfront.search.algorithm.encodings import SKIP_LEVEL, Encoding, EvenStages, Levels
from stepfront.search.algorithm.sampler_genes import SamplerGenes
from stepfront.search.algorithm.surrogate import LEAST_TRIALS, EarlierModel, PlanFeatures, fit_earlier_model
from stepfront.search.pareto import domination_rank
from stepfront.tables.parquet import read_table
from stepfront.tables.schema import FRONT, TRIALS
from stepfront.trainers.variant import SKIP, Variant, marked, parse_variants

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
    front = _usable(front, encoding)
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
            trials = _usable(_scored_trials(earlier_directory(name, directories or {})), encoding)
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


def exact_levels(variants: Sequence[Variant], encoding: Encoding) -> Levels | None:
    """Return the levels [units] of this encoding whose steps run exactly these variants; None where there are none."""
    plain = encoding.of_widths
    level_of = {variant: level for level, variant in enumerate(plain.variants)} | {Variant(SKIP): SKIP_LEVEL}
    if any(variant not in level_of for variant in variants):
        return None
    if isinstance(plain, EvenStages):
        choices = [plain.places(taken) for taken in range(1, plain.units + 1)]
    else:
        choices = [np.arange(plain.units)]
    for units in choices:
        ends = np.cumsum(plain.lengths[units])
        if ends[-1] != len(variants):
            continue
        levels = np.full(plain.units, SKIP_LEVEL)
        levels[units] = [level_of[variants[end - 1]] for end in ends]
        levels = plain.project(levels)
        if plain.step_variants(levels) == tuple(variants):
            return levels
    return None


def left_out(wanted: Mapping[str, int], encoding: Encoding, directories: Mapping[str, Path]) -> list[str]:
    """Return a sentence per earlier search that has plans with marks which this encoding can't express.

    It says what of its front and its trials is used, and why the rest is not.
    """
    sentences = []
    for name in wanted:
        if not name.startswith(FRONT_OF) or not wanted[name]:
            continue
        directory = earlier_directory(name, directories)
        front, trials = read_table(directory / FRONT), _scored_trials(directory)
        both = pd.concat([front[["plan", "widths"]], trials[["plan", "widths"]]]).drop_duplicates("plan")
        marked_plans = [_variants_of_row(row) for _, row in both[_has_marks(both)].iterrows()]
        lost = [plan for plan in marked_plans if exact_levels(plan, encoding) is None]
        if lost:
            lacking = {str(step) for plan in lost for step in plan if step.mark} - set(map(str, encoding.variants))
            why = f"steps that this space lacks ({', '.join(sorted(lacking))})" if lacking else "marks at other steps"
            sentences.append(
                f"of {len(front)} front points of {name.removeprefix(FRONT_OF)}, {len(_usable(front, encoding))} can "
                f"be initial plans here, and of its {len(trials)} trials, {len(_usable(trials, encoding))} can teach "
                f"the model of FID; plans left out: {len(lost)}, with {why}"
            )
    return sentences


def _has_marks(plans: pd.DataFrame) -> pd.Series:
    return plans["plan"].astype(str).str.contains("[ru]")


def _scored_trials(directory: Path) -> pd.DataFrame:
    trials = read_table(directory / TRIALS)
    return trials[(trials["state"] == "complete") & (trials["origin"] != "fit")]


def _variants_of_row(row: pd.Series) -> tuple[Variant, ...]:
    # The widths of the text are rounded; its marks are not.
    marks = [variant.mark for variant in parse_variants(str(row["plan"]))]
    return tuple(map(marked, map(float, row["widths"]), marks))


def _levels_of_row(row: pd.Series, encoding: Encoding) -> Levels:
    """Return the levels of a row's plan, on its solver and grid where this search has them to choose.

    They are the nearest to its widths, or with marks exactly its own.
    """
    levels = exact_levels(_variants_of_row(row), encoding) if set("ru") & set(str(row["plan"])) else None
    if levels is None:
        levels = mapped_levels(row["widths"], encoding)
    if not isinstance(encoding, SamplerGenes):
        return levels
    return encoding.on_sampler(levels, str(row["solver"]), str(row.get("grid") or ""))


def _usable(plans: pd.DataFrame, encoding: Encoding) -> pd.DataFrame:
    """Return the plans whose differences the encoding can express.

    Without marks, these are all where the number of steps is free, and otherwise those with most steps.
    """
    if not len(plans):
        return plans
    has_marks = _has_marks(plans).to_numpy()
    lengths = plans["widths"].map(len).to_numpy()
    free = isinstance(encoding.of_widths, EvenStages)
    kept = ~has_marks & (free | (lengths == lengths[~has_marks].max(initial=0)))
    for place in np.flatnonzero(has_marks):
        kept[place] = exact_levels(_variants_of_row(plans.iloc[place]), encoding) is not None
    return plans[kept]
