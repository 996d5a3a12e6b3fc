"""Describe a plan by a few parameters of its Optuna trial, for tools that read the study.

optuna-dashboard and optuna.importance know a trial by its parameters, and ours is one packed genome.  These say what
the plan is like.  No sampler reads them: they are written with the trial and never suggested.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from stepfront.search.algorithm.encodings import Encoding

QUARTERS = 4
STEPS = "steps"
WIDTH_NAMES = tuple(f"width_quarter_{number}" for number in range(1, QUARTERS + 1))


def trial_parameters(encoding: Encoding, genome: str) -> dict[str, Any]:
    """Return the parameters of a genome's plan and their ranges, as `optuna.trial.create_trial` takes them."""
    values = plan_parameters(encoding.step_widths(encoding.unpack(genome)))
    ranges: dict[str, BaseDistribution] = {name: FloatDistribution(0.0, 1.0) for name in WIDTH_NAMES}
    return {"params": values, "distributions": {STEPS: IntDistribution(1, encoding.steps)} | ranges}


def plan_parameters(widths: Sequence[float]) -> dict[str, float]:
    """Return the steps that a plan takes, and the mean width in each quarter of its steps, from noise to image.

    A skipped step counts as width 0.  A step that lies in two quarters counts in both, by its parts.
    """
    ends = np.linspace(0, len(widths), QUARTERS + 1)
    sums = np.interp(ends, np.arange(len(widths) + 1), [0.0, *accumulate(widths)])
    means = np.diff(sums) * QUARTERS / len(widths)
    return {STEPS: sum(width > 0 for width in widths)} | dict(
        zip(WIDTH_NAMES, map(float, means.clip(0, 1)), strict=True)
    )
