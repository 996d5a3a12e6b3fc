"""Measure how far FID moves between noise seeds: of single plans, and of differences of plans on equal seeds.

Run it with `make bench-noise`; it writes docs/bench-noise.md.  It needs a supernet, by default that of runs/digits.
Its last table is what a floor under the noise of the model of FID would bring.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.arguments import positive
from benchmarks.markdown import markdown
from benchmarks.problem import Problem, load_problem
from stepfront.arrays import Array
from stepfront.search.algorithm.proxies import rank_correlation
from stepfront.search.algorithm.surrogate import PlanFeatures, Surrogate, _Posterior
from stepfront.search.initial_plans.plan_kinds import make_initial_plans
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


def floor_table(problem: Problem, floors: Sequence[float]) -> pd.DataFrame:
    """Return one row per floor under the noise of the model of FID: how well it ranks plans that it has not seen.

    The model learns 20, 30 or 40 of 60 plans on the search's seed and predicts the others; means of 24 draws.
    """
    kinds = {"uniform": 4, "gap": 8, "monotone": 8, "random": 60}
    proposals = make_initial_plans(kinds, problem.plan_source(0))[:60]
    levels = [problem.encoding.unpack(proposal.genome) for proposal in proposals]
    seeds = (0, FIRST_NOISE_SEED, FIRST_NOISE_SEED + 1)
    fid = np.array([[problem.evaluator(problem.plan(one), problem.images, s).fid for one in levels] for s in seeds])
    features = PlanFeatures(problem.encoding, problem.search.gap)(levels)
    held_out = np.log(fid[1:]).mean(axis=0)
    rows = []
    for floor in floors:
        taus = []
        for count in (20, 30, 40):
            for draw in range(8):
                order = np.random.default_rng(draw).permutation(len(levels))
                known, others = order[:count], order[count:]
                predicted = _predicted(features, fid[0], known, others, floor)
                taus.append(
                    (rank_correlation(predicted, fid[0][others]), rank_correlation(predicted, held_out[others]))
                )
        rows.append((f"{floor:.3f}", *(f"{tau:.3f}" for tau in np.mean(taus, axis=0))))
    return pd.DataFrame(rows, columns=["floor", "tau, same seed", "tau, held-out seeds"])


def _predicted(features: Array, fid: Array, known: Array, others: Array, floor: float) -> Array:
    """Return the predicted log FID of the plans `others` by a model of `known` whose noise is at least `floor`."""
    model = Surrogate()
    model.learn(features[known], fid[known], lambda most: np.arange(most))
    kernel = model._kernel
    assert kernel is not None
    kernel = replace(kernel, noise=max(kernel.noise, (floor / model._scale) ** 2))
    scaled = (np.log(fid[known]) - model._mean) / model._scale
    return _Posterior(kernel, features[known], scaled)(features[others])[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/digits"), help="run with a supernet")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--seeds", type=positive, default=8)
    parser.add_argument("--images", type=int, default=512)
    given = parser.parse_args()
    problem = load_problem(given.run, STAGES, STEPS, given.images)
    found = scores(problem, given.seeds)
    extremes = tuple(tuple(found[name][:4]) for name in ("1", "0.5"))
    measured = ScoreNoise(("1", "0.5"), (0, 1, 2, 3), given.images, extremes, (0.0, 0.0))
    # A difference has the noise of two plans.
    expected = measured.difference_of(1 / STAGES) / np.sqrt(2)
    floors = floor_table(problem, (0.0, expected / 2, expected, 2 * expected))
    text = (
        f"# Noise of scores\n\nMade by `make bench-noise` (--seeds {given.seeds} --images {given.images}) on"
        f" {time.strftime('%Y-%m-%d')}; {', '.join(f'{k} {v}' for k, v in versions().items())}.\n\n"
        f"FID ({problem.search.features.name}) of {given.images} images of {problem.search.data.name}, 20 DDIM steps in"
        " 10 stages. Spreads are standard deviations of log FID over noise seeds. The predictions take the variance of"
        " a difference to be proportional to the share of steps that differ. As in a search, they come from full width"
        " and a middle width on the first four seeds.\n\n"
        f"{markdown(single_table(found))}\n\n{markdown(pair_table(found, measured))}\n\n"
        "The model of FID that screens children fits a noise of its own, as a standard deviation of log FID. A floor"
        f" under it, such as the measured {expected:.3f} of plans that differ in one stage, changes how well the model"
        " ranks plans that it has not seen (Kendall's tau, 20 to 40 plans learned):\n\n"
        f"{markdown(floors)}\n"
    )
    (given.docs / "bench-noise.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
