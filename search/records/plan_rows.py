"""Turn a plan into the columns of a table that hold it, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pandas as pd

from stepfront.errors import InputError
from stepfront.search.config import RunSettings
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.variant import parse_variants

WEIGHTS = "weights-"
"""How the digest of fitted weights begins; that of a sampler does not."""


def plan_columns(plan: Plan) -> dict[str, Any]:
    """Return the columns of a plan: its runs, widths, times, solver, grid, and the digest of what was learnt for it."""
    return {
        "plan": plan.runs,
        "widths": list(plan.widths),
        "times": list(plan.times),
        "solver": plan.solver,
        "grid": plan.grid,
        "learnt": learnt_of(plan),
    }


def learnt_of(plan: Plan) -> str:
    """Return the digests of what was learnt for the plan: weights that were fitted to it, then its sampler; or "".

    A plan whose sampler was learnt, or measured for its number of steps, may run on fitted weights, too.
    """
    return " ".join(filter(None, (plan.weights, plan.learnt.digest if plan.learnt else "")))


def fitted_weights_of(learnt: str) -> str:
    """Return the digest of fitted weights among those of the column `learnt`; empty where there is none."""
    return learnt.split(" ")[0] if learnt.startswith(WEIGHTS) else ""


def _sampler_of(learnt: str) -> str:
    return learnt.removeprefix(fitted_weights_of(learnt)).strip()


NO_SAMPLERS: Mapping[str, LearntSampler] = MappingProxyType({})


def plan_of_row(row: pd.Series, samplers: Mapping[str, LearntSampler] = NO_SAMPLERS) -> Plan:
    """Return the plan of a table's row; `samplers` are the learnt ones of the search, by their digests.

    Raises InputError when the row's learnt sampler is missing.
    """
    digests = str(row.get("learnt") or "")
    weights, digest = fitted_weights_of(digests), _sampler_of(digests)
    if digest and digest not in samplers:
        raise InputError(f"the learnt sampler {digest} of the plan {row['plan']} is missing from samplers/")
    learnt = samplers[digest] if digest else None
    times, widths = tuple(map(float, row["times"])), tuple(map(float, row["widths"]))
    # The widths of the text are rounded; its marks are not.
    marks = tuple(variant.mark for variant in parse_variants(str(row["plan"])))
    grid = str(row.get("grid") or "")
    return Plan(times, widths, str(row["solver"]), learnt, grid, marks if any(marks) else (), weights)


def fitted(plan: Plan, learnt: str, samplers: Mapping[str, LearntSampler]) -> Plan:
    """Return the plan on the sampler and weights that `learnt_of` names; where it names none, the plan as it is.

    Raises InputError when the sampler is missing.
    """
    weights, digest = fitted_weights_of(learnt), _sampler_of(learnt)
    plan = replace(plan, weights=weights)
    if not digest:
        return plan
    if digest not in samplers:
        raise InputError(f"the learnt sampler {digest} of the plan {plan.runs} is missing from samplers/")
    sampler = samplers[digest]
    return plan.on_times(sampler.times, sampler.solver, sampler)


def own_sampler(settings: RunSettings) -> tuple[str, str] | None:
    """Return solver and grid of a search whose plans choose theirs; None where all run on the same."""
    return (settings.sampler.solver, settings.sampler.grid) if settings.space.searches_sampler else None


def on_own_sampler(trials: pd.DataFrame, own: tuple[str, str] | None) -> pd.DataFrame:
    """Return the trials that run on the search's own solver and grid; all where plans can't choose theirs."""
    return trials if own is None else trials[(trials["solver"] == own[0]) & (trials["grid"] == own[1])]


def sampler_name(row: pd.Series, own: tuple[str, str] | None) -> str:
    """Return what tells the row of a front from one with equal widths; empty on the search's own sampler.

    It is the digest of a sampler that was fitted to the plan, or solver and grid where they are not the search's own.
    """
    if row.get("origin") == "fit":
        return f"fit {row['learnt']}"
    if own is None or not row.get("grid") or (row["solver"], row["grid"]) == own:
        return ""
    return f"{row['solver']}, {row['grid']} grid"
