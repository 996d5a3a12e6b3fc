"""Measure how far FID moves between noise seeds: of single plans, and of differences of plans on equal seeds.

Run it with `make bench-noise`; it writes docs/bench-noise.md.  It needs a supernet, by default that of runs/digits.
The last lines compare the noise that the model of FID fits by itself with the measured one.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.problem import Problem, load_problem
from benchmarks.search import markdown
from stepfront.search.algorithm.initial_plans import make_initial_plans
from stepfront.search.algorithm.surrogate import PlanFeatures, Surrogate
from stepfront.search.records.score_noise import FIRST_NOISE_SEED, ScoreNoise
from stepfront.search.records.versions import versions

STAGES, STEPS = 10, 20

PLANS = {
    "0.25": [0] * 10,
    "0.5": [1] * 10,
    "0.75": [2] * 10,
    "1": [3] * 10,
    "0.5, then 1": [1] * 5 + [3] * 5,
    "0.5, then 1 a stage later": [1] * 6 + [3] * 4,
    "0.25, then 1": [0] * 5 + [3] * 5,
    "0.25, then a stage of 0.75, then 1": [0] * 5 + [2] + [3] * 4,
    "1, then 0.25": [3] * 5 + [0] * 5,
}
"""Levels of ten stages by a name for the table."""

PAIRS = (
    ("1", "0.25"),
    ("1", "0.5"),
    ("1", "0.75"),
    ("0.75", "0.5"),
    ("0.25, then 1", "1, then 0.25"),
    ("1", "0.25, then 1"),
    ("1", "0.5, then 1"),
    ("1", "1, then 0.25"),
    ("0.5, then 1", "0.5"),
    ("0.5, then 1", "0.5, then 1 a stage later"),
    ("0.25, then 1", "0.25, then a stage of 0.75, then 1"),
)


def scores(problem: Problem, seeds: int) -> dict[str, list[float]]:
    """Return the FID of each plan on each noise seed."""
    found: dict[str, list[float]] = {name: [] for name in PLANS}
    for seed in range(seeds):
        for name, levels in PLANS.items():
            plan = problem.plan(np.array(levels))
            found[name].append(problem.evaluator(plan, problem.images, FIRST_NOISE_SEED + seed).fid)
        print(f"{seed + 1} of {seeds} seeds", flush=True)
    return found


def single_table(found: dict[str, list[float]]) -> pd.DataFrame:
    """Return one row per plan: its mean FID and the spread of its log FID."""
    rows = [(name, f"{np.mean(fid):.2f}", f"{np.std(np.log(fid), ddof=1):.3f}") for name, fid in found.items()]
    return pd.DataFrame(rows, columns=["plan", "mean FID", "spread"])


def pair_table(found: dict[str, list[float]], measured: ScoreNoise) -> pd.DataFrame:
    """Return one row per pair: the spread of its difference, and what `measured` predicts."""
    rows = []
    for first, second in PAIRS:
        share = float(np.mean(np.array(PLANS[first]) != np.array(PLANS[second])))
        difference = np.log(found[first]) - np.log(found[second])
        spreads = f"{difference.std(ddof=1):.3f}", f"{measured.difference_of(share):.3f}"
        rows.append((first, second, f"{share:.0%}", f"{difference.mean():+.2f}", *spreads))
    return pd.DataFrame(
        rows, columns=["plan", "other plan", "steps that differ", "mean difference", "spread", "predicted"]
    )


def fitted_noise(problem: Problem, counts: tuple[int, ...]) -> list[float]:
    """Return the standard deviation of log FID that the model takes for noise, fitted on so many first plans."""
    kinds = {"uniform": 4, "gap": 8, "monotone": 8, "random": max(counts)}
    proposals = make_initial_plans(kinds, problem.plan_source(0))[: max(counts)]
    levels = [problem.encoding.unpack(proposal.genome) for proposal in proposals]
    fid = np.array([problem.fid(one) for one in levels])
    features = PlanFeatures(problem.encoding, problem.search.gap)(levels)
    found = []
    for count in counts:
        model = Surrogate()
        model.learn(features[:count], fid[:count], lambda most: np.arange(most))
        found.append(model.noise)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/digits"), help="run with a supernet")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--images", type=int, default=512)
    given = parser.parse_args()
    problem = load_problem(given.run, STAGES, STEPS, given.images)
    found = scores(problem, given.seeds)
    extremes = tuple(tuple(found[name][:4]) for name in ("1", "0.25"))
    measured = ScoreNoise(("1", "0.25"), (0, 1, 2, 3), given.images, extremes, (0.0, 0.0))
    counts = (20, 40, 60)
    fitted = fitted_noise(problem, counts)
    expected = measured.difference_of(1 / STAGES) / np.sqrt(2)
    text = (
        f"# Noise of scores\n\nMade by `make bench-noise` (--seeds {given.seeds} --images {given.images}) on"
        f" {time.strftime('%Y-%m-%d')}; {', '.join(f'{k} {v}' for k, v in versions().items())}.\n\n"
        f"FID ({problem.search.features.name}) of {given.images} images of {problem.search.data.name}, 20 DDIM steps in"
        " 10 stages. Spreads are standard deviations of log FID over noise seeds. The predictions take the variance of"
        " a difference to be proportional to the share of steps that differ. As in a search, they come from full width"
        " and the narrowest width on the first four seeds.\n\n"
        f"{markdown(single_table(found))}\n\n{markdown(pair_table(found, measured))}\n\n"
        "The model of FID that screens children fits a noise of its own, as a standard deviation of log FID:"
        f" {', '.join(f'{noise:.3f} after {count} plans' for count, noise in zip(counts, fitted, strict=True))}."
        f" Measured for plans that differ in one stage: {expected:.3f}.\n"
    )
    (given.docs / "bench-noise.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
