"""The tables of a search: a ledger in; trials, front and progress as data frames and files out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from optuna.trial import TrialState

from stepfront.errors import InputError
from stepfront.files import write_atomically
from stepfront.search.algorithm.trials import GENOME, Proposal
from stepfront.search.pareto import domination_rank, front_indices, front_size_history, interval, knee_index
from stepfront.search.study.ledger import Ledger
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluation import Evaluation

TRIALS, FRONT, PROGRESS = "trials.parquet", "front.parquet", "progress.parquet"
BASELINES, METHODS, VERSUS, CONFIRM, PROXIES = (
    "baselines.parquet",
    "methods.parquet",
    "versus.parquet",
    "confirm.parquet",
    "proxies.parquet",
)
NOT_CONFIRMED: dict[str, Any] = {
    "fid_confirmed": np.nan,
    "fid_low": np.nan,
    "fid_high": np.nan,
    "confirm_images": 0,
    "confirm_seeds": 0,
    "belongs": True,
    "kid": np.nan,
    "kid_low": np.nan,
    "kid_high": np.nan,
    "precision": np.nan,
    "recall": np.nan,
}
BESIDE_FID = ("kid", "precision", "recall")
"""Scores that confirmed points have beside FID, where features of real images are there."""


@dataclass(frozen=True)
class Snapshot:
    """The tables at one moment, and the facts of search.json."""

    trials: pd.DataFrame
    progress: pd.DataFrame
    front: pd.DataFrame
    facts: Mapping[str, Any]


def trials_table(ledger: Ledger, plan_of: Callable[[str], Plan]) -> pd.DataFrame:
    """One row a finished trial, in the order of their numbers; `plan_of` reads a genome."""
    generations = {t.number: i // ledger.sampler.population for i, t in enumerate(ledger.complete)}
    rows = []
    last = 0
    for trial in ledger.trials:
        if not trial.state.is_finished():
            continue
        result = ledger.result(trial)
        last = generations.get(trial.number, last)
        plan = plan_of(trial.user_attrs[GENOME])
        rows.append(
            {
                "trial": trial.number,
                "generation": last,
                "origin": trial.user_attrs["origin"],
                "parents": list(trial.user_attrs["parents"]),
                "genome": trial.user_attrs[GENOME],
                "plan": plan.runs,
                "widths": list(plan.widths),
                "times": list(plan.times),
                "solver": plan.solver,
                "paired": _number(result.get("paired")),
                "fid": _number(result.get("fid")),
                "features": result.get("features", ""),
                "gflops": _number(result.get("gflops")),
                "latency_ms": _number(result.get("latency_ms")),
                "images": int(result.get("images", 0)),
                "noise_seed": int(result.get("noise_seed", 0)),
                "seconds": _number(result.get("seconds")),
                "worker": result.get("worker", ""),
                "state": "complete" if trial.state == TrialState.COMPLETE else "failed",
                "error": result.get("error", ""),
                "elapsed": _number(result.get("elapsed")),
                "violation": float(sum(max(0.0, v) for v in trial.constraints.values())),
                "calls": int(result.get("calls", 0)),
                "calls_saved": int(result.get("calls_saved", 0)),
                "gflops_saved": float(result.get("gflops_saved", 0.0)),
                **{name: _number(result.get(name)) for name in PART_SECONDS},
                "prefix_states": int(result.get("prefix_states", 0)),
                "prefix_mb": float(result.get("prefix_mb", 0.0)),
                "device": result.get("device", ""),
            }
        )
    return pd.DataFrame(rows, columns=TRIAL_COLUMNS)


PART_SECONDS = ("sampling_seconds", "features_seconds", "distance_seconds")
"""Of a trial's `seconds`, those of its parts; NaN in tables of searches that are older than these columns."""

TRIAL_COLUMNS = [
    *("trial", "generation", "origin", "parents", "genome", "plan", "widths", "times", "solver", "paired"),
    "fid",
    *("features", "gflops", "latency_ms", "images", "noise_seed", "seconds", "worker", "state", "error", "elapsed"),
    *("violation", "calls", "calls_saved", "gflops_saved"),
    *PART_SECONDS,
    *("prefix_states", "prefix_mb", "device"),
]


def told_trials(trials: pd.DataFrame) -> dict[int, tuple[Proposal, dict[str, Any]]]:
    """What a study knew of each trial: what was proposed and what was told, as `Ledger.restore` takes it."""
    found = {}
    for row in trials.to_dict("records"):
        proposal = Proposal(str(row["genome"]), str(row["origin"]), tuple(int(n) for n in row["parents"]))
        result = {"error": str(row["error"]), "elapsed": _told(row["elapsed"])}
        if row["state"] == "complete":
            names = [f.name for f in fields(Evaluation)] + ["worker", "elapsed"]
            result |= {name: _told(row[name]) for name in names if name in row}  # an older table has fewer
        found[int(row["trial"])] = (proposal, result)
    return found


def told_numbers(directory: Path) -> set[int]:
    """The trials of a search's table; none where it is missing or damaged, for it can be made again."""
    with contextlib.suppress(InputError):
        return set(map(int, read_table(directory / TRIALS, "trials")["trial"]))
    return set()


def _told(value: Any) -> Any:
    """A table's value as JSON has it: Python's own, and None where there is none."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value


def scored_row(plan: Plan, evaluation: Evaluation) -> dict[str, Any]:
    """A row for a plan that no search proposed."""
    row: dict[str, Any] = {"trial": -1, "generation": -1, "origin": "baseline", "parents": [], "genome": ""}
    row |= {"plan": plan.runs, "widths": list(plan.widths), "times": list(plan.times), "solver": plan.solver}
    row |= {name: getattr(evaluation, name) for name in ("fid", "features", "gflops", "latency_ms", "images")}
    row |= {name: getattr(evaluation, name) for name in ("noise_seed", "seconds", "error", "paired")}
    row |= {name: getattr(evaluation, name) for name in ("calls", "calls_saved", "gflops_saved", *PART_SECONDS)}
    row |= {name: getattr(evaluation, name) for name in ("prefix_states", "prefix_mb", "device")}
    state = "failed" if evaluation.error else "complete"
    return row | {"worker": "", "state": state, "elapsed": float("nan"), "violation": 0.0}


def front_table(trials: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    """The non-dominated feasible trials, cheapest first, with labels for the knee, the best and the cheapest."""
    complete = trials[trials["state"] == "complete"].reset_index(drop=True)
    scores = complete[list(objectives)].to_numpy(dtype=np.float64)
    front = complete.iloc[front_indices(scores, complete["violation"].to_numpy(dtype=np.float64))]
    front = front.sort_values([objectives[1], "fid"]).reset_index(drop=True)
    front = front.assign(**NOT_CONFIRMED)
    return label_front(front, "fid", objectives[1])


def label_front(front: pd.DataFrame, score: str, cost: str) -> pd.DataFrame:
    """Marks the points that people ask for by name: knee, best and cheapest, the last by the search's own cost."""
    labels: list[list[str]] = [[] for _ in range(len(front))]
    candidates = np.flatnonzero(front["belongs"].to_numpy(dtype=bool))
    if len(candidates):
        points = front[[score, cost]].to_numpy(dtype=np.float64)[candidates]
        labels[candidates[knee_index(points)]].append("knee")
        labels[candidates[int(points[:, 0].argmin())]].append("best")
        labels[candidates[int(points[:, 1].argmin())]].append("cheapest")
    return front.assign(label=[",".join(names) for names in labels])


def progress_table(ledger: Ledger) -> pd.DataFrame:
    """One row a complete trial, in the order in which they were told: how far the search had come."""
    complete = ledger.complete
    scores, volumes = ledger.counted_scores(), ledger.hypervolumes()
    results = [ledger.result(trial) for trial in complete]
    spent = np.cumsum([r["gflops"] * r["images"] for r in results]) if results else np.zeros(0)
    return pd.DataFrame(
        {
            "evaluation": np.arange(1, len(complete) + 1),
            "trial": [trial.number for trial in complete],
            "generation": np.arange(len(complete)) // ledger.sampler.population,
            "hypervolume": volumes,
            "features": [r.get("features", "") for r in results],
            "front_size": front_size_history(scores),
            "best_fid": np.fmin.accumulate(scores[:, 0]),
            "network_gflops": spent,
            "seconds": [r["elapsed"] for r in results],
        }
    )


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Parquet, written beside and renamed."""
    write_atomically(path, lambda beside: table.to_parquet(beside, index=False))


def read_table(path: Path, what: str) -> pd.DataFrame:
    """A table of a search directory; InputError says `what` is missing."""
    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise InputError(f"no {what} at {path}; run `stepfront search` first, or give a search directory") from None
    except Exception as error:  # pyarrow's own errors for damaged files
        raise InputError(f"{path} is no readable table: {' '.join(str(error).split())[:200]}") from None


def plan_of_row(row: pd.Series) -> Plan:
    """The plan of a table's row."""
    return Plan(tuple(map(float, row["times"])), tuple(map(float, row["widths"])), str(row["solver"]))


def pick_point(front: pd.DataFrame, point: str) -> pd.Series:
    """A front point by label (knee, best, cheapest), trial number, or query such as `fid<=12` or `gflops<=1.5`.

    `fid<=X` is the cheapest point at least that good; `gflops<=X` the best point at most that dear.
    """
    if not len(front):
        raise InputError("the front is empty")
    for sign_column, order in (("fid", "gflops"), ("gflops", "fid")):
        if point.replace(" ", "").startswith(f"{sign_column}<="):
            return _query(front, point, sign_column, order)
    if point.isdigit():
        rows = front[front["trial"] == int(point)]
        if len(rows):
            return rows.iloc[0]
    else:
        rows = front[[point in label.split(",") for label in front["label"]]]
        if len(rows):
            return rows.iloc[0]
    possible = ", ".join(["knee", "best", "cheapest", "a query like 'fid<=12'", *(str(t) for t in front["trial"])])
    raise InputError(f"no point {point!r} on the front; possible: {possible}")


def _query(front: pd.DataFrame, point: str, column: str, order: str) -> pd.Series:
    try:
        bound = float(point.partition("<=")[2])
    except ValueError:
        raise InputError(f"{point!r} is no query; queries look like 'fid<=12' or 'gflops<=1.5'") from None
    rows = front[front[column] <= bound]
    if not len(rows):
        raise InputError(f"no front point has {column} <= {bound:g}; the least is {front[column].min():.4g}")
    return rows.sort_values(order).iloc[0]


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def read_confirmed(directory: Path) -> pd.DataFrame | None:
    """All confirmed scores of a search, or None where it was never confirmed; what older tables lack is filled in."""
    path = directory / CONFIRM
    if not path.exists():
        return None
    table = read_table(path, "confirmed scores")
    older: dict[str, Any] = dict.fromkeys(BESIDE_FID, np.nan) | {"real_images": 0, "features": "", "used": True}
    return table.assign(**{name: value for name, value in older.items() if name not in table})


def mark_used(confirmed: pd.DataFrame) -> pd.DataFrame:
    """The scores with a column `used`: those that front and report are made of.

    Scores of different numbers of images do not compare.  So all have the same: the number at which most plans have
    scores, and of several such the largest.
    """
    plans = confirmed.groupby("images")["plan"].nunique()
    return confirmed.assign(used=confirmed["images"] == max(plans.index, key=lambda images: (plans[images], images)))


def with_confirmation(front: pd.DataFrame, confirmed: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    """The front with confirmed scores and intervals; `belongs` tells whether a point is still on it by these scores."""
    front = front.assign(**NOT_CONFIRMED)
    by_plan = {plan: rows.drop_duplicates("noise_seed") for plan, rows in confirmed.groupby("plan")}
    for i, plan in front["plan"].items():
        if plan in by_plan:
            rows = by_plan[plan]
            front.loc[i, ["fid_confirmed", "fid_low", "fid_high"]] = interval(rows["fid"].to_numpy(dtype=np.float64))
            front.loc[i, "confirm_images"], front.loc[i, "confirm_seeds"] = int(rows["images"].iloc[0]), len(rows)
            # Seeds that were scored before there were these scores, or against fewer real images, have no say in them.
            beside = rows.dropna(subset=["kid"]) if "kid" in rows else rows.head(0)
            beside = beside[beside["real_images"] == beside["real_images"].max()] if len(beside) else beside
            if len(beside):
                front.loc[i, ["kid", "kid_low", "kid_high"]] = interval(beside["kid"].to_numpy(dtype=np.float64))
                means = [float(beside[name].mean()) for name in ("precision", "recall")]
                front.loc[i, ["precision", "recall"]] = means
    scored = front["fid_confirmed"].notna().to_numpy()
    if scored.any():
        points = front.loc[scored, ["fid_confirmed", *objectives[1:]]].to_numpy(dtype=np.float64)
        belongs = np.ones(len(front), dtype=bool)
        belongs[np.flatnonzero(scored)] = domination_rank(points) == 0
        front["belongs"] = belongs
    return label_front(front, "fid_confirmed" if scored.all() else "fid", objectives[1])
