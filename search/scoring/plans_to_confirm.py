"""List the plans that a confirmation scores: front, full width, other full-width samplers and the best baselines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from stepfront.errors import InputError
from stepfront.search.config import RunSettings
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.learnt_samplers import fitted_samplers, read_samplers
from stepfront.search.records.plan_rows import on_own_sampler, own_sampler, plan_of_row, sampler_name
from stepfront.search.scoring.held_out_scorer import PlanKey, plan_name
from stepfront.search.scoring.versus import SAMPLERS, versus_on_own_sampler
from stepfront.tables.search_tables import read_baselines, read_snapshot
from stepfront.trainers.diffusion.plan import Plan


def plans_to_confirm(directory: Path, problem: SearchProblem) -> list[dict[str, Any]]:
    """Return one row per plan: the settings' full width, the front, full-width samplers and the best baselines.

    Full-width samplers are the best per number of steps, and those that weights were fitted to.  The last ones are the
    plans that fitted points of the front ran on before: what fitting gained is against them.
    """
    snapshot = read_snapshot(directory)
    full, own = problem.uniform_plan(1.0), own_sampler(problem.settings)
    samplers, learnt = _samplers(directory), read_samplers(directory)
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}

    def add(kind: str, label: str, trial: int | None, row: pd.Series) -> None:
        cost = {"gflops": float(row["gflops"]), "latency_ms": float(row["latency_ms"]), "fid_search": float(row["fid"])}
        entry: dict[str, Any] = {"kind": kind, "label": label, "trial": trial, "plan": str(row["plan"])}
        sampler = str(row.get("sampler") or "") or sampler_name(row, own)
        entry |= {"sampler": sampler, "_plan": plan_of_row(row, learnt)} | cost
        rows.setdefault((*plan_key(entry), kind if kind in ("full", "sampler") else ""), entry)

    complete = snapshot.trials[snapshot.trials["state"] == "complete"]
    plain = on_own_sampler(complete[complete["origin"] != "fit"], own)
    for _, row in plain[plain["plan"] == full.runs].iterrows():
        add("full", "full width", int(row["trial"]), row)
    if not rows:  # the search had no such trial
        same = samplers[(samplers["plan"] == full.runs) & (samplers["sampler"] == "")]
        for _, row in same.iterrows():
            add("full", "full width", None, row)
    for _, row in snapshot.front.iterrows():
        add("front", str(row["label"]) or f"trial {row['trial']}", int(row["trial"]), row)
    for _, row in samplers.loc[samplers.groupby(samplers["widths"].map(len))["fid"].idxmin()].iterrows():
        add("sampler", SAMPLERS, None, row)
    for fit in fitted_samplers(directory):
        add("sampler", SAMPLERS, None, pd.Series(fit))
    for _, row in _best_baselines(directory, problem.settings).iterrows():
        add("baseline", str(row["method"]), None, row)
    parents = {int(row["parents"][0]) for _, row in snapshot.front.iterrows() if row["origin"] == "fit"}
    for _, row in complete[complete["trial"].isin(parents)].iterrows():
        add("parent", f"trial {row['trial']}", int(row["trial"]), row)
    return list(rows.values())


def plan_key(row: dict[str, Any]) -> PlanKey:
    """Return what tells the plan of a row from others, in scores and claims."""
    return row["plan"], row["sampler"]


def plans_by_key(rows: Sequence[dict[str, Any]]) -> dict[PlanKey, Plan]:
    """Return the plans of the rows, each once.  Raises InputError where two plans would have the same scores."""
    plans: dict[PlanKey, Plan] = {}
    for row in rows:
        known = plans.setdefault(plan_key(row), row["_plan"])
        if known != row["_plan"]:
            raise InputError(
                f"two plans to confirm are called {plan_name(plan_key(row))}, and differ in times, solver or what was "
                "learnt for them; where one is a baseline that an earlier version scored, `stepfront baselines` scores "
                "it again"
            )
    return plans


def _samplers(directory: Path) -> pd.DataFrame:
    baselines = read_baselines(directory)
    return baselines[baselines["method"] == SAMPLERS]


def _best_baselines(directory: Path, settings: RunSettings) -> pd.DataFrame:
    """Return the uniform plans, and each other baseline that is the best at some front point's cost.

    Full width on other samplers has rows of its own, and does not count here.
    """
    baselines = read_baselines(directory)
    baselines = baselines[baselines["method"] != SAMPLERS]
    compared = versus_on_own_sampler(directory, settings)
    best = baselines["plan"].isin(set(compared["baseline_plan"].dropna()))
    return baselines[best | (baselines["method"] == "uniform")].drop_duplicates("plan")
