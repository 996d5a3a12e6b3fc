"""Describe a plan by a few parameters of its Optuna trial, for tools that read the study.

optuna-dashboard and optuna.importance know a trial by its parameters, and ours is one packed genome.  These say what
the plan is like.  No sampler reads them: they are written with the trial and never suggested.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from stepfront.search.genomes.encodings import Encoding
from stepfront.trainers.variant import Variant

QUARTERS = 4
STEPS = "steps"


WIDTH_NAMES = tuple(f"width_quarter_{number}" for number in range(1, QUARTERS + 1))
REUSED, UNGUIDED, SHALLOW, OWN_SCALE = "reused", "unguided", "shallow", "own_scale"
"""Shares of the steps that have a mark.  One each: in SQLite, a parameter costs as much as a tenth of a proposal."""


MARKS: dict[str, Callable[[Variant], bool]] = {
    REUSED: lambda variant: variant.reuse,
    UNGUIDED: lambda variant: not variant.guided,
    SHALLOW: lambda variant: variant.depth is not None,
    OWN_SCALE: lambda variant: variant.scale is not None,
}


def trial_parameters(encoding: Encoding, genome: str) -> dict[str, Any]:
    """Return the parameters of a genome's plan and their ranges, as `optuna.trial.create_trial` takes them.

    Which marks the encoding has decides their names, so trials before and after an extension may differ.
    """
    variants = encoding.step_variants(encoding.unpack(genome))
    values = plan_parameters([variant.width for variant in variants])
    for name, has_mark in MARKS.items():
        if any(map(has_mark, encoding.variants)):
            values[name] = sum(map(has_mark, variants)) / len(variants)
    ranges: dict[str, BaseDistribution] = {name: FloatDistribution(0.0, 1.0) for name in values}
    return {"params": values, "distributions": ranges | {STEPS: IntDistribution(1, encoding.steps)}}


def plan_parameters(widths: Sequence[float]) -> dict[str, float]:
    """Return the steps that a plan takes, and the mean width in each quarter of its steps, from noise to image.

    A skipped step counts as width 0.
    """
    return {STEPS: sum(width > 0 for width in widths)} | dict(zip(WIDTH_NAMES, _quarters(widths), strict=True))


def _quarters(values: Sequence[float]) -> list[float]:
    """Return the mean of values per step in each quarter; a step that lies in two counts in both, by its parts."""
    ends = np.linspace(0, len(values), QUARTERS + 1)
    sums = np.interp(ends, np.arange(len(values) + 1), [0.0, *accumulate(values)])
    return [float(mean) for mean in (np.diff(sums) * QUARTERS / len(values)).clip(0, 1)]
