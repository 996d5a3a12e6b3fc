"""Turn a plan into the columns of a table that hold it, and back."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pandas as pd

from stepfront.errors import InputError
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.diffusion.plan import Plan


def plan_columns(plan: Plan) -> dict[str, Any]:
    """Return the columns of a plan: its runs, widths, times, solver, and the digest of its learnt sampler."""
    return {
        "plan": plan.runs,
        "widths": list(plan.widths),
        "times": list(plan.times),
        "solver": plan.solver,
        "learnt": "" if plan.learnt is None else plan.learnt.digest,
    }


NO_SAMPLERS: Mapping[str, LearntSampler] = MappingProxyType({})


def plan_of_row(row: pd.Series, samplers: Mapping[str, LearntSampler] = NO_SAMPLERS) -> Plan:
    """Return the plan of a table's row; `samplers` are the learnt ones of the search, by their digests.

    Raises InputError when the row's learnt sampler is missing.
    """
    digest = str(row.get("learnt") or "")
    if digest and digest not in samplers:
        raise InputError(f"the learnt sampler {digest} of the plan {row['plan']} is missing from samplers/")
    learnt = samplers[digest] if digest else None
    return Plan(tuple(map(float, row["times"])), tuple(map(float, row["widths"])), str(row["solver"]), learnt)


def fitted(plan: Plan, digest: str, samplers: Mapping[str, LearntSampler]) -> Plan:
    """Return the plan on the sampler that was fitted to it; without a digest, the plan as it is.

    Raises InputError when the sampler is missing.
    """
    if not digest:
        return plan
    if digest not in samplers:
        raise InputError(f"the learnt sampler {digest} of the plan {plan.runs} is missing from samplers/")
    learnt = samplers[digest]
    return Plan(learnt.times, plan.widths, learnt.solver, learnt)


def fit_name(row: pd.Series) -> str:
    """Return what tells a fitted plan from the plan it was fitted to; empty for every other row of a front."""
    return f"fit {row['learnt']}" if row.get("origin") == "fit" else ""
