"""Compare learnt samplers with solvers on hand grids at full width: Frechet distance by number of steps.

`make bench-sampler` writes docs/bench-sampler.md.  Scores are kept beside the run and made once.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.judges import Judge
from benchmarks.problem import Problem, load_problem
from benchmarks.search import markdown
from benchmarks.solvers import FIRST_SEED, named_judges
from stepfront.search.problem.baseline_plans import SAMPLERS
from stepfront.search.records.versions import versions
from stepfront.tables.parquet import write_table
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import time_grid
from stepfront.trainers.learning_settings import LearningSettings, Learnt
from stepfront.trainers.metrics.fid import Moments
from stepfront.trainers.sampler_learning.learn import learn_sampler
from stepfront.trainers.sampler_learning.pairs import learning_seed
from stepfront.trainers.sampler_learning.starts import different_forms

STEPS = (5, 8, 4, 6, 10, 3, 15, 20)
KINDS: dict[str, Learnt] = {
    "learnt times": "times",
    "learnt times, network times apart": "network_times",
    "learnt solver": "solver",
}


def main() -> None:
    """Learn and score what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/digits"), help="run with a supernet")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--page", action="store_true", help="write the page from what is scored already")
    given = parser.parse_args()
    torch.set_num_threads(1)
    path = given.run / "bench-sampler.parquet"
    table = pd.read_parquet(path) if path.exists() else pd.DataFrame(columns=["sampler", "steps"])
    if not given.page:
        problem = load_problem(given.run, 1, max(given.steps), given.images)
        with TemporaryDirectory() as folder:
            judges = dict(named_judges(problem, Path(folder)))
        for steps in given.steps:
            known = set(table.loc[table["steps"] == steps, "sampler"])
            for row in rows_of(problem, judges, steps, given.seeds, known):
                added = pd.DataFrame([row])
                table = pd.concat([table, added], ignore_index=True) if len(table) else added
                write_table(table, path)
                print(f"{steps} steps, {row['sampler']}", flush=True)
    (given.docs / "bench-sampler.md").write_text(page(table, given.run.name), encoding="utf-8")


def rows_of(
    problem: Problem, judges: dict[str, Judge], steps: int, seeds: int, known: set[str]
) -> Iterator[dict[str, Any]]:
    """Yield one row per sampler of this many steps: its scores, and for a learnt one what learning took."""
    widths, schedule = (1.0,) * steps, problem.schedule
    fresh = range(FIRST_SEED, FIRST_SEED + seeds)
    for solver, grid in SAMPLERS:
        name = f"{solver}, {grid}"
        if name not in known:
            plan = Plan(tuple(map(float, time_grid(schedule, grid, steps))), widths, solver)
            yield {"sampler": name, "steps": steps} | scores(problem, judges, plan, fresh)
    missing = {name: learnt for name, learnt in KINDS.items() if name not in known}
    if not missing:
        return
    forms = different_forms(schedule, steps, SAMPLERS)
    choice = {form: choice_score(problem, judges, Plan(form.times, widths, form.solver)) for form in forms}
    starts = sorted(forms, key=lambda form: choice[form])[: LearningSettings().starts]
    for name, learnt in missing.items():
        result = learn_sampler(full_width(problem, 0), widths, learnt, LearningSettings(), starts=starts)
        plan = Plan(result.sampler.times, widths, result.sampler.solver, result.sampler)
        used = result.better and choice_score(problem, judges, plan) < choice[starts[0]]
        figures = {"seconds": result.seconds, "calls": result.calls, "start": result.start_name, "used": used}
        figures |= {"held_out": result.held_out, "start_held_out": result.start_held_out, "train": result.train}
        yield {"sampler": name, "steps": steps} | figures | scores(problem, judges, plan, fresh)


def choice_score(problem: Problem, judges: dict[str, Judge], plan: Plan) -> float:
    """Return the distance by the first judge, on the noise that a search chooses samplers by."""
    first = dict(list(judges.items())[:1])
    return next(iter(scores(problem, first, plan, (learning_seed(LearningSettings().seed) + 1,)).values()))


def full_width(problem: Problem, seed: int) -> Sampler:
    """Return the sampler of full width on the noise of a seed."""
    card = problem.search.card
    network = problem.__dict__.setdefault("full", problem.subnets()[1.0])
    noise = Noise(seed, (card.image_channels, card.resolution, card.resolution))
    clip = problem.search.settings.sampler.clip
    return Sampler({1.0: network}, problem.schedule, noise, torch.device("cpu"), clip=clip)


def scores(problem: Problem, judges: dict[str, Judge], plan: Plan, seeds: Iterable[int]) -> dict[str, float]:
    """Return the mean Frechet distance over the noise seeds, by judge."""
    found: dict[str, list[float]] = {name: [] for name in judges}
    for seed in seeds:
        images = list(full_width(problem, seed).sample(plan, problem.images, 256))
        for name, (features, reference) in judges.items():
            moments = Moments.of(features(batch) for batch in images)
            found[name].append(reference.distance(moments) if np.isfinite(moments.mean).all() else float("inf"))
    return {name: float(np.mean(each)) for name, each in found.items()}


def page(table: pd.DataFrame, run: str) -> str:
    """Return the text of docs/bench-sampler.md."""
    figures = ("sampler", "steps", "seconds", "calls", "start", "used", "held_out", "start_held_out", "train")
    judges = [name for name in table.columns if name not in figures]
    known = versions()
    parts = [
        "# Learnt samplers against solvers on hand grids",
        "",
        f"Made by `make bench-sampler` on {time.strftime('%Y-%m-%d')}, stepfront {known['stepfront']}, one CPU thread",
        f"of a machine with other work. Supernet: {run}, full width. Frechet distances by number of steps: means over",
        "noise seeds that neither learning nor a search uses; lower is better. Hand samplers are those of the baseline",
        "`samplers`. The last line is the best learnt score as a share of the best hand sampler's.",
        "",
    ]
    for judge in judges:
        parts += [f"## By {judge}", "", markdown(wide(table, judge)), ""]
    learnt = table[table["sampler"].isin(KINDS)]
    columns = {"start": "starts against", "held_out": "held-out", "start_held_out": "closed form", "train": "training"}
    shown = learnt[["steps", "sampler", *columns, "used", "calls", "seconds"]].rename(columns=columns)
    digits = {"held-out": 4, "closed form": 4, "training": 4, "seconds": 0}
    shown = shown.sort_values(["steps", "sampler"]).round(digits).astype({"calls": int, "seconds": int})
    parts += [
        "## What learning took",
        "",
        "Distances are to the images of a teacher of 50 steps (`learning.distance: root`), on held-out pairs, beside",
        "those of the best closed form and of the training pairs. A search uses a sampler whose held-out distance, and",
        "whose score by the first judge on noise of its own, are smaller than those of the best hand sampler.",
        "Calls are network calls, one per image; a backward pass counts as one.",
        "",
        markdown(shown),
        "",
    ]
    return "\n".join(parts)


def wide(table: pd.DataFrame, judge: str) -> pd.DataFrame:
    """Return one row per sampler and one column per number of steps, and the shares in the last row."""
    scored = table.pivot_table(index="sampler", columns="steps", values=judge, sort=False)
    scored = scored[sorted(scored.columns)]
    is_learnt = scored.index.isin(KINDS)
    share = scored[is_learnt].min() / scored[~is_learnt].min()
    shown = scored.map(lambda score: "not run" if np.isnan(score) else f"{score:.3g}")
    shown.loc["share"] = [f"{value:.2f}" for value in share]
    return shown.rename(columns=str).reset_index()


if __name__ == "__main__":
    main()
