"""Score the front of a search again on held-out noise seeds, with intervals and the savings at equal quality.

The best of many noisy scores is lucky.  Front and full width are therefore scored again, side by side, on noise seeds
that the search never used.  The quality in reports is computed from these scores alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stepfront.errors import InputError
from stepfront.files import write_json
from stepfront.search.execution.plan_scorer import PlanScorer
from stepfront.search.execution.ray_session import ray_session
from stepfront.search.execution.shared_prefixes import shared_prefixes
from stepfront.search.execution.worker import LoadEvaluator
from stepfront.search.pareto import interval
from stepfront.search.problem.costs import evaluation_limit, load_or_measure_costs
from stepfront.search.problem.evaluator_parts import load_real_features, worker_parts
from stepfront.search.problem.load import load_problem_of_search
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.front import mark_used, read_confirmed, with_confirmation
from stepfront.search.records.plan_rows import plan_of_row
from stepfront.search.records.run_directory import FACTS_FILE, find_search
from stepfront.search.storage.lock import directory_lock
from stepfront.tables.parquet import read_table, write_table
from stepfront.tables.schema import BASELINES, BESIDE_FID, CONFIRM, FRONT, VERSUS
from stepfront.tables.search_tables import read_snapshot
from stepfront.trainers.diffusion.plan import Plan

FIRST_SEED = 1_000_000
"""First noise seed of confirmations (the search's own is added), far from any that a search uses."""


def run_confirmation(
    path: Path, images: int | None, seeds: int | None, on_result: Callable[[int, int], None] = lambda d, t: None
) -> Path:
    """Score front, uniform plans and the best baselines again, and rewrite front and facts.

    `images` and `seeds` default to the search's settings.  Scores that exist with as many images are reused, so a
    second call costs nothing; scores of other numbers of images stay beside them.  Raises InputError for fewer than 2
    seeds, and when a plan cannot be scored.
    """
    directory, settings = find_search(path)
    images, seeds = images or settings.confirm.images, seeds or settings.confirm.seeds
    if seeds < 2:
        raise InputError(f"{seeds} noise seed(s) given; an interval needs at least 2 (confirm.seeds)")
    with directory_lock(directory):
        problem = load_problem_of_search(settings, directory)
        wanted = _wanted(directory, problem)
        real = load_real_features(problem)
        noise_seeds = [FIRST_SEED + settings.evaluation.noise_seed + i for i in range(seeds)]
        stored = read_confirmed(directory)
        done = _done(stored, images, 0 if real is None else min(images, len(real)))
        jobs = [(row, seed) for row in wanted for seed in noise_seeds if (row["plan"], seed) not in done]
        new = pd.DataFrame(_score(problem, real, directory, jobs, images, on_result) if jobs else [])
        # Kind, label and trial are the current ones: plans that are still on the front keep their scores.
        now = pd.DataFrame([{k: v for k, v in row.items() if k != "_plan"} for row in wanted])
        table = mark_used(now.merge(_scores(stored, new), on="plan"))
        write_table(table.assign(features=problem.features.name), directory / CONFIRM)
        apply_confirmation(directory)
    return directory


SCORES = ["plan", "noise_seed", "images", "fid", *BESIDE_FID, "real_images"]


def _done(stored: pd.DataFrame | None, images: int, real_images: int) -> set[tuple[str, int]]:
    """Return plans and seeds that need no new score; KID and others depend on the number of real images, too."""
    if stored is None:
        return set()
    same = stored[(stored["images"] == images) & (stored["real_images"] == real_images)]
    return set(zip(same["plan"], same["noise_seed"], strict=True))


def _scores(stored: pd.DataFrame | None, new: pd.DataFrame) -> pd.DataFrame:
    """Return one score per plan, seed and number of images; a new score replaces an old one."""
    parts = [part[SCORES] for part in (stored, new) if part is not None and len(part)]
    return pd.concat(parts).drop_duplicates(["plan", "noise_seed", "images"], keep="last")


def _wanted(directory: Path, problem: SearchProblem) -> list[dict[str, Any]]:
    snapshot = read_snapshot(directory)
    full = problem.uniform_plan(1.0)
    rows: dict[str, dict[str, Any]] = {}

    def add(kind: str, label: str, trial: int | None, row: pd.Series) -> None:
        plan = plan_of_row(row)
        cost = {"gflops": float(row["gflops"]), "latency_ms": float(row["latency_ms"]), "fid_search": float(row["fid"])}
        entry = {"kind": kind, "label": label, "trial": trial, "plan": str(row["plan"]), **cost, "_plan": plan}
        rows.setdefault(str(row["plan"]) + (" full" if kind == "full" else ""), entry)

    complete = snapshot.trials[snapshot.trials["state"] == "complete"]
    for _, row in complete[complete["plan"] == full.runs].iterrows():
        add("full", "full width", int(row["trial"]), row)
    for _, row in snapshot.front.iterrows():
        add("front", str(row["label"]) or f"trial {row['trial']}", int(row["trial"]), row)
    for _, row in _best_baselines(directory).iterrows():
        add("baseline", str(row["method"]), None, row)
    return list(rows.values())


def _best_baselines(directory: Path) -> pd.DataFrame:
    """Return the uniform plans, and each other baseline that is the best at some front point's cost."""
    path = directory / BASELINES
    if not path.exists():
        return pd.DataFrame(columns=["method"])
    baselines = read_table(path)
    if not (directory / VERSUS).exists():
        return baselines[baselines["method"] == "uniform"]
    versus = read_table(directory / VERSUS)
    best = baselines["plan"].isin(set(versus["baseline_plan"].dropna()))
    return baselines[best | (baselines["method"] == "uniform")].drop_duplicates("plan")


def _score(
    problem: SearchProblem,
    real: np.ndarray | None,
    directory: Path,
    jobs: list[tuple[dict[str, Any], int]],
    images: int,
    on_result: Callable[[int, int], None],
) -> list[dict[str, Any]]:
    settings = problem.settings
    unique: dict[tuple[str, int], Plan] = {(row["plan"], seed): row["_plan"] for row, seed in jobs}
    with ray_session(settings.workers):
        costs = load_or_measure_costs(problem, directory)
        parts = worker_parts(problem, costs)
        pairs = [(plan, seed) for (_, seed), plan in unique.items()]
        limit = evaluation_limit(settings, costs, images)
        with shared_prefixes(settings.workers) as shared:
            load = LoadEvaluator(replace(parts, real=real), shared)
            with PlanScorer(load, settings.workers, limit) as scorer:
                evaluations = scorer.score(pairs, images, on_result)
    rows = []
    for (plan, seed), evaluation in zip(unique, evaluations, strict=True):
        if evaluation.error:
            raise InputError(f"cannot confirm the plan {plan}: {evaluation.error}")
        row = {"plan": plan, "noise_seed": seed, "images": images, "fid": evaluation.fid}
        row |= {name: getattr(evaluation, name, float("nan")) for name in BESIDE_FID}
        rows.append(row | {"real_images": getattr(evaluation, "real_images", 0)})
    return rows


def apply_confirmation(directory: Path) -> None:
    """Bring front and savings in line with the confirmed scores on disk."""
    snapshot = read_snapshot(directory)
    confirmed = read_confirmed(directory)
    if confirmed is None:
        return
    objectives = snapshot.facts.get("objectives", ["fid", "gflops"])
    confirmed = confirmed[confirmed["used"]]
    front = with_confirmation(snapshot.front, confirmed, objectives)
    write_table(front, directory / FRONT)
    facts = dict(snapshot.facts)
    facts["savings"] = savings(front, confirmed, objectives[1])
    write_json(directory / FACTS_FILE, facts)


def savings(front: pd.DataFrame, confirmed: pd.DataFrame, cost: str = "gflops") -> dict[str, Any] | None:
    """Return the cheapest confirmed point that is not worse than full width; None where there is none.

    Cheapest is by `cost`, the search's own objective.  Not worse means: the interval of the difference to full width,
    seed by seed, does not lie above zero.  All plans share their noise, so the difference is far less noisy than either
    score, and this is stricter than asking that two wide intervals overlap.
    """
    full = confirmed[confirmed["kind"] == "full"]
    if not len(full) or not len(front):
        return None
    full = full.drop_duplicates("noise_seed")
    full_fid, full_low, full_high = interval(full["fid"].to_numpy(dtype=np.float64))
    full_gflops = float(full["gflops"].iloc[0])
    by_seed = full.set_index("noise_seed")["fid"]
    for _, point in front.sort_values(cost).iterrows():
        own = confirmed[(confirmed["plan"] == point["plan"])].drop_duplicates("noise_seed").set_index("noise_seed")
        difference = interval((own["fid"] - by_seed).dropna().to_numpy(dtype=np.float64))
        if difference[1] <= 0:
            break
    else:
        return None
    return {
        "trial": int(point["trial"]),
        "plan": str(point["plan"]),
        "flops_saved": 1 - float(point["gflops"]) / full_gflops,
        "latency_saved": 1 - float(point["latency_ms"]) / float(full["latency_ms"].iloc[0]),
        "gflops": float(point["gflops"]),
        "full_gflops": full_gflops,
        "fid": float(point["fid_confirmed"]),
        "fid_low": float(point["fid_low"]),
        "fid_high": float(point["fid_high"]),
        "full_fid": full_fid,
        "full_low": full_low,
        "full_high": full_high,
        "difference": difference[0],
        "difference_low": difference[1],
        "difference_high": difference[2],
    }
