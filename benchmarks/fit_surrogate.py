"""Fit a surrogate table (benchmarks/surrogate_table.py) to evaluated plans of a supernet.

Run it with `make surrogate-table`; it writes benchmarks/surrogate_tables/NAME.json.  Plans are evaluated in this
process, in the order of their genomes, so that those with a common prefix share it.  Of a space too large to score all
of its plans, the table keeps the best front that a local search finds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.problem import Problem, load_problem, table_fields
from benchmarks.surrogate_table import (
    MOST_ENUMERATED,
    TABLES,
    SurrogateTable,
    as_stored,
    best_known_front,
    write_surrogate_table,
)
from stepfront.arrays import Array
from stepfront.search.algorithm.proxies import rank_correlation
from stepfront.search.genomes.encodings import Levels
from stepfront.search.initial_plans.plan_kinds import (
    PlanSource,
    cut_levels,
    gap_levels,
    least_gap_plans,
    monotone_levels,
    random_levels,
    uniform_levels,
)
from stepfront.tables.parquet import write_table
from stepfront.trainers.networks.card import read_card

RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Penalties to choose from by five-fold cross-validation, of main and of pairwise terms."""


def chosen_plans(source: PlanSource, count: int) -> list[tuple[str, Levels]]:
    """Return about `count` plans with their kind: half random, half like those of a front."""
    rng, encoding = np.random.default_rng([source.seed, 7]), source.encoding
    share = count // 10
    kinds = {
        "uniform": uniform_levels(4, source),
        "random": random_levels(count, source)[: 4 * share],
        "runs": [_random_runs(rng, encoding.units, encoding.highest) for _ in range(share)],
        "monotone": monotone_levels(share, source),
        "cuts": cut_levels(share // 2, source),
        "gap": gap_levels(share, source),
    }
    near = gap_levels(3 * share, source)
    kinds["near gap"] = [_changed(rng, levels, encoding.highest) for levels in near]
    found: dict[bytes, tuple[str, Levels]] = {}
    for kind, plans in kinds.items():
        for levels in plans:
            found.setdefault(np.asarray(levels, dtype=np.int64).tobytes(), (kind, levels))
    return list(found.values())


def _random_runs(rng: np.random.Generator, units: int, highest: int) -> Levels:
    """Return a plan of two to five runs of independent levels."""
    borders = np.sort(rng.integers(1, units, rng.integers(1, 5)))
    return rng.integers(0, highest + 1, len(borders) + 1)[np.searchsorted(borders, np.arange(units), side="right")]


def _changed(rng: np.random.Generator, levels: Levels, highest: int) -> Levels:
    """Return levels with one to three units changed by one."""
    at = rng.choice(len(levels), rng.integers(1, 4), replace=False)
    child = np.array(levels)
    child[at] = np.clip(child[at] + rng.choice([-1, 1], len(at)), 0, highest)
    return child


def evaluated(problem: Problem, run: Path, count: int, work: Path) -> pd.DataFrame:
    """Return the table of evaluated plans: genome, kind, fid; an interrupted run continues from its file."""
    digest = read_card(run / "supernet").digest[:8]
    path = (
        work
        / f"plans-{problem.encoding.units}-{problem.search.settings.sampler.steps}-{problem.images}-{digest}.parquet"
    )
    known = pd.read_parquet(path) if path.exists() else pd.DataFrame({"genome": [], "kind": [], "fid": []})
    plans = {problem.encoding.pack(levels): kind for kind, levels in chosen_plans(problem.plan_source(0), count)}
    todo = sorted(genome for genome in plans if genome not in set(known["genome"]))
    begin = time.monotonic()
    for start in range(0, len(todo), 50):
        rows = [
            {"genome": genome, "kind": plans[genome], "fid": problem.fid(problem.encoding.unpack(genome))}
            for genome in todo[start : start + 50]
        ]
        known = pd.concat([known, pd.DataFrame(rows)], ignore_index=True) if len(known) else pd.DataFrame(rows)
        write_table(known, path)
        done = min(start + 50, len(todo))
        left = (time.monotonic() - begin) / done * (len(todo) - done) / 60
        print(f"evaluated {done} of {len(todo)} plans, {left:.1f} min left", flush=True)
    return known[known["genome"].isin(list(plans))].sort_values("genome").reset_index(drop=True)


def design(plans: Levels, count: int) -> tuple[Array, Array]:
    """Return the columns of main terms [N, units x W] and of pairwise terms [N, pairs x W x W] of plans [N, units]."""
    one_hot = (plans[:, :, None] == np.arange(count)).astype(np.float64)
    units = plans.shape[1]
    i, j = np.triu_indices(units, 1)
    pairs = one_hot[:, i, :, None] * one_hot[:, j, None, :]
    return one_hot.reshape(len(plans), -1), pairs.reshape(len(plans), -1)


def fit(plans: Levels, logs: Array, count: int, ridges: tuple[float, float]) -> tuple[float, Array, Array]:
    """Return constant, main terms [units, W] and pairwise terms [pairs, W, W]: ridge regression in its dual form."""
    main, pairs = design(plans, count)
    middle, weights = float(logs.mean()), np.array(ridges)
    kernel = main @ main.T / weights[0] + pairs @ pairs.T / weights[1]
    dual = np.linalg.solve(kernel + np.eye(len(logs)), logs - middle)
    units = plans.shape[1]
    return (
        middle,
        (main.T @ dual / weights[0]).reshape(units, count),
        (pairs.T @ dual / weights[1]).reshape(-1, count, count),
    )


def _predicted(plans: Levels, fitted: tuple[float, Array, Array]) -> Array:
    constant, main_terms, pair_terms = fitted
    main, pairs = design(plans, main_terms.shape[1])
    return constant + main @ main_terms.ravel() + pairs @ pair_terms.ravel()


def best_ridges(plans: Levels, logs: Array, count: int) -> tuple[float, float]:
    """Return the penalties of least squared error in five-fold cross-validation."""
    fold = np.random.default_rng(1).permutation(len(logs)) % 5

    def error(ridges: tuple[float, float]) -> float:
        parts = [fit(plans[fold != f], logs[fold != f], count, ridges) for f in range(5)]
        return sum(float(((_predicted(plans[fold == f], parts[f]) - logs[fold == f]) ** 2).sum()) for f in range(5))

    return min(((a, b) for a in RIDGES for b in RIDGES), key=error)


def held_out_error(predicted: Array, logs: Array) -> dict[str, float]:
    """Return R^2 of log FID, Kendall's tau, and the median relative error of FID."""
    residuals = predicted - logs
    return {
        "plans": len(logs),
        "r2": round(1 - float((residuals**2).sum() / ((logs - logs.mean()) ** 2).sum()), 4),
        "tau": round(rank_correlation(predicted, logs), 4),
        "median_relative_error": round(float(np.median(np.abs(np.expm1(residuals)))), 4),
    }


def errors_by_kind(predicted: Array, logs: Array, kinds: Array) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the errors over all plans, over independent random ones, and over those like a front."""
    random = kinds == "random"
    for name, part in (("all", np.full(len(kinds), True)), ("random", random), ("front-like", ~random)):
        yield name, held_out_error(predicted[part], logs[part])


def make_table(problem: Problem, found: pd.DataFrame, fields: dict[str, Any]) -> SurrogateTable:
    """Return the table fitted to four fifths of the plans, with the `fields` of all tables; `about` says its error."""
    encoding, count = problem.encoding, len(problem.widths)
    plans = np.array([encoding.unpack(genome) for genome in found["genome"]])
    logs = np.log(found["fid"].to_numpy())
    held_out = np.random.default_rng(0).permutation(len(logs)) % 5 == 0
    ridges = best_ridges(plans[~held_out], logs[~held_out], count)
    fitted = fit(plans[~held_out], logs[~held_out], count, ridges)
    additive = fit(plans[~held_out], logs[~held_out], count, (ridges[0], 1e9))
    kinds = found["kind"].to_numpy()[held_out]
    errors = dict(errors_by_kind(_predicted(plans[held_out], fitted), logs[held_out], kinds))
    errors["all, main terms alone"] = held_out_error(_predicted(plans[held_out], additive), logs[held_out])
    pairs = np.zeros((encoding.units, encoding.units, count, count))
    pairs[np.triu_indices(encoding.units, 1)] = fitted[2]
    fitted_to = {"fitted to": int((~held_out).sum()), "ridges": list(ridges), "held-out error": errors}
    about = fields["about"] | fitted_to
    return SurrogateTable(**fields | {"about": about}, constant=fitted[0], main=fitted[1], pairs=pairs)


def with_front(table: SurrogateTable, plans: Levels) -> SurrogateTable:
    """Return the table, with the best front that a search from `plans` finds where all plans are too many."""
    if table.count <= MOST_ENUMERATED:
        return table
    source = table.plan_source(0)
    least_gap = least_gap_plans(source.encoding, source.width_costs, source.gap())
    return replace(table, front_plans=best_known_front(table, np.vstack([*least_gap, plans])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/digits"), help="run with a supernet")
    parser.add_argument("--work", type=Path, default=Path("runs/surrogate"), help="folder for scores")
    parser.add_argument("--name", default="digits-10", help="name of the table")
    parser.add_argument("--steps", type=int, default=10, help="sampling steps, one gene each")
    parser.add_argument("--plans", type=int, default=700)
    parser.add_argument("--images", type=int, default=512)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    problem = load_problem(given.run, given.steps, given.steps, given.images)
    found = evaluated(problem, given.run, given.plans, given.work)
    command = " ".join(["python -m benchmarks.fit_surrogate", *sys.argv[1:]])
    fields = table_fields(problem, given.run, f"{given.steps} DDIM steps, trailing grid", command)
    table = make_table(problem, found, fields)
    plans = np.array([problem.encoding.unpack(genome) for genome in found["genome"]])
    write_surrogate_table(with_front(as_stored(table), plans), TABLES / f"{given.name}.json")
    print(pd.DataFrame(table.about["held-out error"]).T)


if __name__ == "__main__":
    main()
