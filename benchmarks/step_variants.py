"""Measure what variants of a step are worth: fronts with reuse and unguided steps beside fronts of widths alone.

Run it with `make bench-variants`; it writes docs/bench-variants.md.  Two supernets on Fashion-MNIST are trained, one
unconditional and one with classes and guidance.  On each, two searches get equal evaluations.  Their fronts, DeepCache,
guidance intervals and fewer steps at full width are scored again on noise seeds that no search used.  An interrupted
call continues: supernets and scores are kept in the folder of the runs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.arguments import positive
from benchmarks.step_variants_page import FEWER, VARIANTS, WIDTHS, Front, Measured, write_page
from benchmarks.variants import KeptScores, Searched, problem_of, search_here, width_costs
from stepfront.files import write_text
from stepfront.search.config import RunSettings, settings_from
from stepfront.search.driver.train import run_training
from stepfront.search.problem.baseline_plans import baseline_plans, variant_methods
from stepfront.search.problem.plan_source import make_plan_source
from stepfront.search.problem.problem import SearchProblem
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.inference.cost import WidthCost, plan_gflops

HELD_OUT_SEED = 1_000_000
"""First noise seed of the scores on held-out noise."""

SEARCH_SEED = 0
"""The noise seed that searches score on, and on which baselines are chosen."""

SHARES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
"""Costs at which fronts are compared, as shares of full width at all steps."""


@dataclass(frozen=True)
class Case:
    """A supernet: the title of its section, its classes, the guidance of its plans, and what a step chooses from."""

    title: str
    variants: Sequence[str]
    classes: int | None = None
    guidance: float = 1.0


CASES = {
    "unconditional": Case("Unconditional", ("0.25", "0.5", "0.75", "1.0", "0.5r", "1.0r")),
    "conditional": Case(
        "Class-conditional, guidance 2", ("0.25", "0.5", "0.75", "1.0", "1.0r", "0.5u", "1.0u"), 10, 2.0
    ),
}


def run_settings(name: str, given: argparse.Namespace) -> RunSettings:
    """Return the settings of a case's run, whose folder is `given.runs / name`."""
    case = CASES[name]
    steps = given.training_steps
    training = {"steps": steps, "batch": 64, "lr": 2e-3, "warmup": max(1, steps // 10), "ema": 0.99}
    training |= {"checkpoint_every": max(1, steps // 4), "samples_every": 0, "held_out_images": given.held_out_images}
    network: dict[str, Any] = {
        "base": given.base,
        "multipliers": [1, 2, 2],
        "blocks": 1,
        "attention": [given.size // 4],
    }
    content: dict[str, Any] = {
        "name": f"{name}-{run_name(given)}",
        "directory": str(given.runs),
        "data": {"format": "idx", "path": str(given.data), "size": given.size, "limit": given.limit},
        "network": network | {"widths": [0.25, 0.5, 0.75, 1.0], "classes": case.classes},
        "training": training | {"decay": True},
        "features": {"name": given.features, "classifier_epochs": 2, "examine": "skip"},
        "sampler": {"steps": given.steps, "guidance": case.guidance},
        "evaluation": {"images": given.images, "batch": min(given.images, 128), "noise_repeats": 0, "samplers": False},
        "budget": {"trials": given.trials},
        "tracking": {"uri": None},
    }
    return settings_from(content, [])


TRAINED = ("base", "size", "limit", "training_steps", "features", "held_out_images")
SCORED = (*TRAINED, "steps", "trials", "images", "held_out", "seeds", "replays")
"""The options that supernet and judge, and all results, depend on."""


def run_name(given: argparse.Namespace, options: Sequence[str] = TRAINED) -> str:
    """Return a text that tells other values of options apart."""
    return hashlib.sha256(json.dumps({key: vars(given)[key] for key in options}).encode()).hexdigest()[:8]


def measured_once(name: str, given: argparse.Namespace) -> Measured:
    """Return what was measured with equal options before, or measure and keep it."""
    path = given.runs / f"measured-{name}-{run_name(given, SCORED)}.json"
    if not path.exists():
        write_text(path, json.dumps(measure(name, given).content()))
    return Measured.of_content(json.loads(path.read_text(encoding="utf-8")))


def measure(name: str, given: argparse.Namespace) -> Measured:
    """Train what is missing, search twice, and score all fronts on held-out noise."""
    case, settings = CASES[name], run_settings(name, given)
    begin = time.monotonic()
    run_training(settings, False, lambda report: None, lambda text: None)
    print(f"{name}: supernet after {time.monotonic() - begin:.0f} s", flush=True)
    run = Path(settings.directory) / settings.name
    with tempfile.TemporaryDirectory() as place:
        common = [f"evaluation.images={given.images}", f"budget.trials={given.trials}"]
        listed = f"space.variants=[{', '.join(case.variants)}]"
        problems = {
            key: problem_of(run, Path(place) / key, [*common, *more])
            for key, more in ((WIDTHS, []), (VARIANTS, [listed]))
        }
        costs = width_costs(problems[WIDTHS])
        score = KeptScores(problems[VARIANTS], costs, given.runs)
        searches, seconds = _searches(name, problems, costs, score, given)
        plans = {key: [(one.plans[i], float(one.scores[i, 0])) for i in one.front] for key, one in searches.items()}
        plans |= _baselines(problems[VARIANTS], costs, score, given.images)
        full = plan_gflops(problems[WIDTHS].uniform_plan(1.0), costs)
        fronts = {key: _front(scored, costs, score, full, given) for key, scored in plans.items()}
    losses = {float(width): loss for width, loss in problems[WIDTHS].card.made_with["held_out_losses"].items()}
    minutes = (time.monotonic() - begin) / 60
    return Measured(case.title, case.variants, full, fronts, seconds, losses, minutes)


def _searches(
    name: str,
    problems: Mapping[str, SearchProblem],
    costs: dict[float, WidthCost],
    score: KeptScores,
    given: argparse.Namespace,
) -> tuple[dict[str, Searched], dict[str, float]]:
    """Return both searches, and the driver's CPU seconds per trial: medians over replays, which take turns."""
    found: dict[str, Searched] = {}
    for key, problem in problems.items():
        begin = time.monotonic()
        found[key] = _searched(problem, costs, score, given.images)
        print(f"{name}: {key} searched after {time.monotonic() - begin:.0f} s", flush=True)
    # All scores are kept now, so a search costs what its driver does.
    seconds: dict[str, list[float]] = {key: [] for key in problems}
    for _ in range(given.replays):
        for key, problem in problems.items():
            seconds[key].append(_searched(problem, costs, score, given.images).driver_seconds / given.trials)
    return found, {key: statistics.median(each) for key, each in seconds.items()}


def _searched(problem: SearchProblem, costs: dict[float, WidthCost], score: KeptScores, images: int) -> Searched:
    shutil.rmtree(problem.settings.search_directory, ignore_errors=True)
    return search_here(problem, costs, lambda plan: score(plan, images, SEARCH_SEED))


def _baselines(
    problem: SearchProblem, costs: dict[float, WidthCost], score: KeptScores, images: int
) -> dict[str, list[tuple[Plan, float]]]:
    """Return the plans of each baseline with their FID on the searches' noise seed."""
    source = make_plan_source(problem, costs, problem.encoding_of_widths)
    names = {FEWER: "fewer_steps", **{method: method for method in variant_methods(problem)}}
    plans = {name: baseline_plans(method, 10, problem, source) for name, method in names.items()}
    return {name: [(plan, score(plan, images, SEARCH_SEED)) for plan in each] for name, each in plans.items()}


def _front(
    plans: Sequence[tuple[Plan, float]],
    costs: dict[float, WidthCost],
    score: KeptScores,
    full: float,
    given: argparse.Namespace,
) -> Front:
    """Return, per cost, the plan with the best FID of the search up to it, and its FIDs on held-out noise."""
    priced = [(plan_gflops(plan, costs), fid, plan) for plan, fid in plans]
    points: dict[float, tuple[str, float, list[float]]] = {}
    for share in SHARES:
        affordable = [one for one in priced if one[0] <= share * full * (1 + 1e-9)]
        if affordable:
            gflops, _, plan = min(affordable, key=lambda one: (one[1], one[0]))
            seeds = range(HELD_OUT_SEED, HELD_OUT_SEED + given.seeds)
            points[share] = plan.runs, gflops, [score(plan, given.held_out, seed) for seed in seeds]
    return points


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_variants", description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data/fashion-mnist"), help="folder of the idx files"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/bench-variants"), help="folder of supernets and scores")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--case", choices=CASES, action="append", help="default: both")
    parser.add_argument("--size", type=int, default=28, help="side of the images in pixels")
    parser.add_argument("--limit", type=int, default=20_000, help="images that are read")
    parser.add_argument("--base", type=int, default=16, help="network.base")
    parser.add_argument("--training-steps", type=int, default=1500, help="training.steps of each supernet")
    parser.add_argument("--held-out-images", type=int, default=256, help="training.held_out_images, for the gap table")
    parser.add_argument("--features", default="classifier", help="features.name")
    parser.add_argument("--steps", type=int, default=10, help="denoising steps")
    parser.add_argument("--trials", type=int, default=80, help="evaluations per search")
    parser.add_argument("--images", type=int, default=256, help="images per score of a search")
    parser.add_argument("--held-out", type=int, default=512, help="images per score on held-out noise")
    parser.add_argument("--seeds", type=positive, default=5, help="held-out noise seeds")
    parser.add_argument("--replays", type=int, default=3, help="times that a search is repeated to time its driver")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Measure all cases and write the page."""
    given = parse(arguments)
    torch.set_num_threads(1)
    command, measured = shlex.join(["python", "-m", "benchmarks.step_variants", *arguments]), []
    for name in given.case or CASES:
        measured.append(measured_once(name, given))
        write_page(given.docs / "bench-variants.md", measured, given, command)


if __name__ == "__main__":
    main(sys.argv[1:])
