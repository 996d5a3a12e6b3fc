"""Measure what genes for solver and time grid are worth: searches with and without them, at equal evaluations.

Run it with `make bench-sampler-genes`; it writes docs/bench-sampler-genes.md.  It needs a supernet, by default that of
runs/digits.  Fronts are scored again on noise seeds that no search uses.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.arguments import positive
from benchmarks.markdown import markdown
from benchmarks.variants import (
    TWENTY_STEPS,
    KeptScores,
    Searched,
    problem_of,
    reference_point,
    search,
    share_table,
    width_costs,
)
from stepfront.search.pareto import front_indices, hypervolume
from stepfront.search.records.versions import versions

GENES = ["space.solvers=[unipc_2, dpmpp_2m, ipndm_3]", "space.grids=[quadratic, leading, edm_open]"]

VARIANTS: dict[str, list[str]] = {
    "unipc_2 on quadratic": [*TWENTY_STEPS],
    "genes": [*TWENTY_STEPS, *GENES],
}
"""Overrides of the settings by a name for the table."""

HELD_OUT_SEED = 1_000_000
"""First noise seed of the scores of fronts."""


def held_out(searched: Searched, score: KeptScores, images: int, seeds: int) -> np.ndarray:
    """Return mean FID on held-out noise seeds and cost of the front's plans, [points, 2]."""
    rows = []
    for place in searched.front:
        plan = searched.plans[place]
        fids = [score(plan, images, HELD_OUT_SEED + seed) for seed in range(seeds)]
        rows.append((float(np.mean(fids)), float(searched.scores[place, 1])))
    return np.array(rows)


def held_out_table(
    found: Mapping[str, Sequence[np.ndarray]], reference: list[float], costs: list[float]
) -> pd.DataFrame:
    """Return, by held-out scores, the share of the union's hypervolume and the best FID up to each cost."""
    union = np.vstack([scores for fronts in found.values() for scores in fronts])
    volume = hypervolume(union[front_indices(union)], reference)
    rows = []
    for name, fronts in found.items():
        row = {"variant": name, "hypervolume": f"{np.median([hypervolume(s, reference) for s in fronts]) / volume:.3f}"}
        for cost in costs:
            best = [s[s[:, 1] <= cost * 1.0001, 0] for s in fronts]
            shown = np.median([found.min() if len(found) else np.nan for found in best])
            row[f"FID at {cost:.3f} GFLOPs"] = f"{shown:.2f}"
        rows.append(row)
    return pd.DataFrame(rows)


def used_samplers(searched: Sequence[Searched]) -> str:
    """Return how often each solver and grid occurs on the fronts."""
    counted = Counter((one.plans[i].solver, one.plans[i].grid) for one in searched for i in one.front)
    return ", ".join(f"{solver} on {grid} {count}" for (solver, grid), count in counted.most_common())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/digits"), help="run with a supernet")
    parser.add_argument("--work", type=Path, default=Path("runs/bench-sampler-genes"), help="folder for scores")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--seeds", type=positive, default=2)
    parser.add_argument("--budget", type=int, default=60)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--held-out", type=int, default=2, help="noise seeds of the scores of fronts")
    parser.add_argument("--held-out-images", type=int, default=256)
    given = parser.parse_args()
    found: dict[str, list[Searched]] = {name: [] for name in VARIANTS}
    for seed in range(given.seeds):
        for name, overrides in VARIANTS.items():
            begin = time.monotonic()
            found[name].append(search(given.run, given.work, overrides, seed, given.budget, given.images))
            print(f"seed {seed}, {name}: {time.monotonic() - begin:.0f} s", flush=True)
    shown = [n for n in (28, 40, 60, 80, 120, 160) if n <= given.budget]
    with tempfile.TemporaryDirectory() as place:
        problem = problem_of(given.run, Path(place), TWENTY_STEPS)
        costs = width_costs(problem)
        score = KeptScores(problem, costs, given.work)
        fronts = {
            name: [held_out(one, score, given.held_out_images, given.held_out) for one in searches]
            for name, searches in found.items()
        }
    reference = reference_point([one for searches in found.values() for one in searches])
    at = [steps * costs[1.0].step_gflops for steps in (2, 3, 4, 6, 10, 15)]
    options = f"--seeds {given.seeds} --budget {given.budget} --images {given.images}"
    options += f" --held-out {given.held_out} --held-out-images {given.held_out_images}"
    lines = [
        "# Genes for solver and grid\n\nMade by `make bench-sampler-genes`"
        f" (`python -m benchmarks.sampler_genes {options}`)"
        f" on {time.strftime('%Y-%m-%d')}; {', '.join(f'{k} {v}' for k, v in versions().items())}.\n\n"
        "The digits supernet of the quickstart, up to 20 steps in ten stages, with the default first generation,"
        f" variation and screening. With genes, each plan also chooses: `{'`, `'.join(GENES)}`. {given.images} images"
        " per score, one noise seed.\n",
        "## By the search's own scores\n\nShare of the hypervolume of the union of all fronts, median of"
        f" {given.seeds} seeds, by FID evaluations and by network TFLOPs, which is what a search costs.\n\n"
        + markdown(share_table(found, shown, given.images))
        + "\n",
        f"## On held-out noise\n\nThe fronts again, mean of {given.held_out} noise seeds of {given.held_out_images}"
        " images: share of the hypervolume of the union of all fronts, and the best FID at the cost of 2, 3, 4, 6, 10"
        " and 15 steps at full width; medians over seeds.\n\n" + markdown(held_out_table(fronts, reference, at)) + "\n",
        f"Solvers and grids on the fronts with genes: {used_samplers(found['genes'])}.\n",
    ]
    given.docs.mkdir(parents=True, exist_ok=True)
    (given.docs / "bench-sampler-genes.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
