"""Turn a plan into the columns of a table that hold it, and back."""

from __future__ import annotations

from typing import Any

import pandas as pd

from stepfront.trainers.diffusion.plan import Plan


def plan_columns(plan: Plan) -> dict[str, Any]:
    """Return the columns of a plan: its runs, widths, times and solver."""
    return {"plan": plan.runs, "widths": list(plan.widths), "times": list(plan.times), "solver": plan.solver}


def plan_of_row(row: pd.Series) -> Plan:
    """Return the plan of a table's row."""
    return Plan(tuple(map(float, row["times"])), tuple(map(float, row["widths"])), str(row["solver"]))
