"""Compare solvers and time grids at full width: Frechet distance by number of steps, on two judges or three.

`make bench-solvers` writes docs/bench-solvers.md from the supernets that exist.  Scores are kept beside the runs and
made once.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import numpy as np
import pandas as pd
import torch

from benchmarks.judges import Judge, make_judge
from benchmarks.problem import Problem, load_problem
from benchmarks.search import markdown
from stepfront.plugins import SOLVERS
from stepfront.search.records.versions import versions
from stepfront.trainers.config import SamplerSettings
from stepfront.trainers.diffusion.noise import CachedNoise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import time_grid
from stepfront.trainers.metrics.fid import Moments

SCORES = "bench-solvers.parquet"
GRIDS: tuple[str, ...] = get_args(SamplerSettings.model_fields["grid"].annotation)
DETERMINISTIC = [name for name in SOLVERS.ours if not name.startswith("ddpm")]
STEPS = (5, 8, 10, 4, 6, 20, 3, 15)
FIRST_SEED = 7_000_000
"""First noise seed; neither a search nor a confirmation uses it."""


def main() -> None:
    """Score what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, action="append", help="run with a supernet; may be repeated")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--pairs", nargs="*", help="solver,grid; default: all")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--page", action="store_true", help="write the page from the scores that exist")
    given = parser.parse_args()
    torch.set_num_threads(1)
    pairs = [tuple(pair.split(",")) for pair in given.pairs or map(",".join, product(DETERMINISTIC, GRIDS))]
    runs = given.run or [Path("runs/digits"), Path("runs/fashion-mnist")]
    if not given.page:
        for run in runs:
            measure(run, pairs, given)
    tables = {run.name: pd.read_parquet(run / SCORES) for run in runs}
    (given.docs / "bench-solvers.md").write_text(page(tables), encoding="utf-8")


def measure(run: Path, pairs: Sequence[tuple[str, ...]], given: argparse.Namespace) -> None:
    """Write one row per solver, grid, number of steps and seed; scores of earlier calls are kept."""
    path = run / SCORES
    table = (
        pd.read_parquet(path) if path.exists() else pd.DataFrame(columns=["solver", "grid", "steps", "seed", "images"])
    )
    known = set(table[["solver", "grid", "steps", "seed", "images"]].itertuples(index=False, name=None))
    problem = load_problem(run, 1, max(given.steps), given.images)
    with TemporaryDirectory() as folder:
        judges = dict(named_judges(problem, Path(folder)))
    seeds = range(FIRST_SEED, FIRST_SEED + given.seeds)
    for seed, steps in product(seeds, given.steps):
        rows = []
        for solver, grid in pairs:
            if (solver, grid, steps, seed, given.images) not in known:
                found = score(problem, judges, solver, grid, steps, seed)
                place = {"solver": solver, "grid": grid, "steps": steps, "seed": seed, "images": given.images}
                rows.append(place | found)
        if rows:
            table = pd.concat([table, pd.DataFrame(rows)], ignore_index=True) if len(table) else pd.DataFrame(rows)
            table.to_parquet(path, index=False)
            print(f"{run.name}: {steps} steps, noise seed {seed}", flush=True)


def named_judges(problem: Problem, folder: Path) -> Iterator[tuple[str, Judge]]:
    """Yield the search's own judge, a classifier where there are labels, and raw pixels."""
    search = problem.search
    yield search.features.name, (search.features.unpack(torch.device("cpu")), search.reference)
    if search.data.labels is not None and search.features.name != "classifier":
        yield "classifier", make_judge("classifier", search.data, folder)
    yield "pixels", make_judge("pixels", search.data, folder)


def score(
    problem: Problem, judges: dict[str, Judge], solver: str, grid: str, steps: int, seed: int
) -> dict[str, float]:
    """Return the Frechet distance of full width by each judge."""
    card = problem.search.card
    noise = CachedNoise(seed, (card.image_channels, card.resolution, card.resolution))
    network = problem.__dict__.setdefault("full", problem.subnets()[1.0])
    times = tuple(map(float, time_grid(problem.schedule, grid, steps)))
    clip = problem.search.settings.sampler.clip
    sampler = Sampler({1.0: network}, problem.schedule, noise, torch.device("cpu"), clip=clip)
    images = list(sampler.sample(Plan(times, (1.0,) * steps, solver), problem.images, 256))
    found = {}
    for name, (features, reference) in judges.items():
        moments = Moments.of(features(batch) for batch in images)
        found[name] = reference.distance(moments) if np.isfinite(moments.mean).all() else float("inf")
    return found


def page(tables: dict[str, pd.DataFrame]) -> str:
    """Return the text of docs/bench-solvers.md."""
    parts = [
        f"# Solvers and time grids\n\nMade by `make bench-solvers` on {time.strftime('%Y-%m-%d')}; "
        f"{', '.join(f'{k} {v}' for k, v in versions().items())}.\n\n"
        "Frechet distance at full width, on noise seeds on which no plan is chosen. The first table of a\n"
        "supernet has the search's own judge, the others further judges. Each has the best grid of each solver per\n"
        "number of steps.\n"
        "The table of all judges has the distance as a multiple of the best pair's at that number of steps, geometric\n"
        "mean over the judges."
    ]
    for name, table in tables.items():
        images, seeds = (", ".join(map(str, sorted(set(table[key])))) for key in ("images", "seed"))
        parts.append(f"## {name}\n\n{images} images per score; noise seed {seeds}.")
        for judge in judges_of(table):
            parts.append(f"### {judge}\n\n{markdown(best_grids(table, judge))}")
        parts.append(f"### All judges\n\n{markdown(ranking(table))}")
    return "\n\n".join(parts) + "\n"


def judges_of(table: pd.DataFrame) -> list[str]:
    """Return the columns that hold distances."""
    return [name for name in table.columns if name not in ("solver", "grid", "steps", "seed", "images")]


def best_grids(table: pd.DataFrame, judge: str) -> pd.DataFrame:
    """Return, per solver and number of steps, the least distance and its grid."""
    means = table.groupby(["solver", "grid", "steps"])[judge].mean().reset_index()
    best = means.loc[means.groupby(["solver", "steps"])[judge].idxmin()]
    cells = best.assign(cell=[f"{v:.3f} {g}" for v, g in zip(best[judge], best["grid"], strict=True)])
    return cells.pivot(index="solver", columns="steps", values="cell").rename(columns=str).reset_index()


def ranking(table: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs by their distance relative to the best of each judge and number of steps, geometric mean."""
    means = table.groupby(["solver", "grid", "steps"])[judges_of(table)].mean()
    relative = np.log(means / means.groupby("steps").min()).mean(axis=1)
    wide = np.exp(relative.unstack("steps"))
    wide["all"] = np.exp(relative.groupby(["solver", "grid"]).mean())
    return wide.sort_values("all").head(16).round(2).rename(columns=str).reset_index()


if __name__ == "__main__":
    main()
