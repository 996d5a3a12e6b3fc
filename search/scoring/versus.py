"""Compare a search with its baselines: hypervolume per method, and the best baseline per front point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stepfront.search.config import RunSettings
from stepfront.search.objectives import Objectives, violations
from stepfront.search.pareto import front_indices, hypervolume
from stepfront.tables.parquet import write_table
from stepfront.tables.schema import METHOD_SCORES, VERSUS
from stepfront.tables.search_tables import read_baselines, read_snapshot

SAMPLERS = "samplers"
"""Full width with other solvers, grids and numbers of steps: the same few dozen plans for every search."""


def write_comparison_with_baselines(directory: Path, settings: RunSettings) -> None:
    """Write methods.parquet and versus.parquet from the search's trials, front and baselines."""
    constraints = settings.evaluation.constraints
    snapshot, baselines = read_snapshot(directory), read_baselines(directory)
    complete = snapshot.trials[snapshot.trials["state"] == "complete"]
    write_table(methods_table(complete, baselines, snapshot.facts, constraints), directory / METHOD_SCORES)
    cost = Objectives.of_facts(snapshot.facts).cost
    write_table(versus(snapshot.front, baselines, cost, constraints), directory / VERSUS)


def versus_on_own_sampler(directory: Path, settings: RunSettings) -> pd.DataFrame:
    """Return the table of `versus` without the baseline `samplers`, which hides the others where it wins.

    It is empty where the search has no baselines.
    """
    snapshot, baselines = read_snapshot(directory), read_baselines(directory)
    others = baselines[baselines["method"] != SAMPLERS]
    return versus(snapshot.front, others, Objectives.of_facts(snapshot.facts).cost, settings.evaluation.constraints)


def methods_table(
    complete: pd.DataFrame, baselines: pd.DataFrame, facts: Mapping[str, Any], constraints: Sequence[str] = ()
) -> pd.DataFrame:
    """Return one row per method: its evaluations, its hypervolume and its share of all methods' hypervolume.

    Plans that break a constraint are evaluations, and have no hypervolume.
    """
    objectives, scored = Objectives.of_facts(facts), pd.concat([complete, baselines])
    everything = _keeping(scored, constraints)
    reference = _reference_point(facts, objectives, everything if len(everything) else scored)
    methods = [("search", complete), *((str(name), rows) for name, rows in baselines.groupby("method", sort=False))]
    union = hypervolume(_front_scores(everything, objectives), reference)
    rows = []
    for name, table in methods:
        volume = hypervolume(_front_scores(_keeping(table, constraints), objectives), reference)
        rows.append(
            {
                "method": name,
                "evaluations": len(table),
                "hypervolume": volume,
                "share": volume / union if union else 1.0,
                "features": str(facts.get("features", "")),
                "network_gflops": float((table["gflops"] * table["images"]).sum())
                + (_other_gflops(facts) if name == "search" else 0.0),
            }
        )
    return pd.DataFrame(rows)


def versus(
    front: pd.DataFrame, baselines: pd.DataFrame, cost: str = "gflops", constraints: Sequence[str] = ()
) -> pd.DataFrame:
    """Return for each front point the best baseline at equal or lower `cost`, which is the search's own objective.

    The baseline's columns are empty where none that keeps the constraints is as cheap.
    """
    rows, baselines = [], _keeping(baselines, constraints)
    for _, point in front.iterrows():
        # A baseline's cost is the same sum in another order: equal means equal to rounding.
        affordable = baselines[baselines[cost] <= point[cost] * (1 + 1e-9)]
        best = affordable.loc[affordable["fid"].idxmin()] if len(affordable) else None
        rows.append(
            {
                "trial": int(point["trial"]),
                "gflops": float(point["gflops"]),
                "fid": float(point["fid"]),
                "features": str(point.get("features", "")),
                "baseline_method": None if best is None else str(best["method"]),
                "baseline_plan": None if best is None else _plan_text(best),
                "baseline_gflops": float("nan") if best is None else float(best["gflops"]),
                "baseline_fid": float("nan") if best is None else float(best["fid"]),
            }
        )
    return pd.DataFrame(rows)


def _keeping(table: pd.DataFrame, constraints: Sequence[str]) -> pd.DataFrame:
    """Return the rows that keep the constraints of the search; rows of baselines say nothing of them."""
    return table[violations(table, constraints) == 0]


def _plan_text(baseline: pd.Series) -> str:
    """Return a baseline's plan, with its sampler where that is not the settings' own."""
    sampler = baseline.get("sampler")
    return f"{baseline['plan']} ({sampler})" if sampler else str(baseline["plan"])


def advice(compared: pd.DataFrame, settings: RunSettings) -> str | None:
    """Return what a next search should try, given `versus_on_own_sampler`; None where the baselines suggest nothing."""
    beaten = int(((compared["baseline_method"] == "fewer_steps") & (compared["baseline_fid"] < compared["fid"])).sum())
    if not beaten or settings.space.skip == "even":
        return None
    return (
        f"fewer full-width steps beat {beaten} of {len(compared)} front points at equal or lower cost; a search under "
        "another name with --set space.skip=even"
        + (" --set space.encoding=steps" if settings.space.encoding == "cuts" else "")
        + " includes such plans"
    )


def _other_gflops(facts: Mapping[str, Any]) -> float:
    """Return what the search's repeated scores and the fits in its pauses cost in networks, beside its trials."""
    noise, rounds = facts.get("noise"), facts.get("fit_rounds") or []
    learning = sum(1000 * float(one["tflops"] or 0) for one in rounds)
    return learning + (float(noise["network_gflops"]) if noise else 0.0)


def _front_scores(table: pd.DataFrame, objectives: Objectives) -> np.ndarray:
    scores = objectives.minimised(table)
    scores = scores[np.isfinite(scores).all(axis=1)]
    return scores[front_indices(scores)]


def _reference_point(facts: Mapping[str, Any], objectives: Objectives, everything: pd.DataFrame) -> list[float]:
    """Return the search's own reference point, or one beyond all scores where it has none."""
    if point := facts.get("reference"):
        return [objectives.sign(name) * float(point[name]) for name in objectives.names]
    worst = np.nanmax(objectives.minimised(everything), axis=0)
    shares = [0.1 if name == "fid" or name in objectives.scores else 0.05 for name in objectives.names]
    return [float(value + share * abs(value)) for value, share in zip(worst, shares, strict=True)]
