"""Choose the plans of an earlier search that this one can use.

Plans with marks are taken where the encoding has exactly them, and left out elsewhere: with its widths alone such a
plan would be another plan, with another FID.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from stepfront.search.genomes.encodings import SKIP_LEVEL, Encoding, EvenStages, Levels
from stepfront.search.records.settings_paths import FRONT_OF
from stepfront.tables.parquet import read_table
from stepfront.tables.schema import FRONT, TRIALS
from stepfront.trainers.variant import SKIP, Variant, has_marks, marked, parse_variants


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
        front, trials = read_table(directory / FRONT), scored_trials(directory)
        both = pd.concat([front[["plan", "widths"]], trials[["plan", "widths"]]]).drop_duplicates("plan")
        marked_plans = [variants_of_row(row) for _, row in both[marked_rows(both)].iterrows()]
        lost = [plan for plan in marked_plans if exact_levels(plan, encoding) is None]
        if lost:
            lacking = {str(step) for plan in lost for step in plan if step.mark} - set(map(str, encoding.variants))
            why = f"steps that this space lacks ({', '.join(sorted(lacking))})" if lacking else "marks at other steps"
            points, taught = len(usable_plans(front, encoding)), len(usable_plans(trials, encoding))
            sentences.append(
                f"of {len(front)} front points of {name.removeprefix(FRONT_OF)}, {points} can "
                f"be initial plans here, and of its {len(trials)} trials, {taught} can teach "
                f"the model of FID; plans left out: {len(lost)}, with {why}"
            )
    return sentences


def marked_rows(plans: pd.DataFrame) -> pd.Series:
    """Return which plans have marks (r, u or d)."""
    return plans["plan"].map(has_marks).astype(bool)


def scored_trials(directory: Path) -> pd.DataFrame:
    """Return the complete trials of a search, without fitted ones, whose samplers this search lacks."""
    trials = read_table(directory / TRIALS)
    return trials[(trials["state"] == "complete") & (trials["origin"] != "fit")]


def variants_of_row(row: pd.Series) -> tuple[Variant, ...]:
    """Return the variants of a row's plan, one per step."""
    # The widths of the text are rounded; its marks are not.
    marks = [variant.mark for variant in parse_variants(str(row["plan"]))]
    return tuple(map(marked, map(float, row["widths"]), marks))


def usable_plans(plans: pd.DataFrame, encoding: Encoding) -> pd.DataFrame:
    """Return the plans whose differences the encoding can express.

    Without marks, these are all where the number of steps is free, and otherwise those with most steps.
    """
    if not len(plans):
        return plans
    with_marks = marked_rows(plans).to_numpy()
    lengths = plans["widths"].map(len).to_numpy()
    free = isinstance(encoding.of_widths, EvenStages)
    kept = ~with_marks & (free | (lengths == lengths[~with_marks].max(initial=0)))
    for place in np.flatnonzero(with_marks):
        kept[place] = exact_levels(variants_of_row(plans.iloc[place]), encoding) is not None
    return plans[kept]


def earlier_directory(name: str, directories: Mapping[str, Path]) -> Path:
    """Return the directory of the tables of `front:SEARCH`: from `directories`, else SEARCH itself."""
    return directories.get(name, Path(name.removeprefix(FRONT_OF)))
