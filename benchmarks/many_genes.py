"""Time what a proposal takes of the processor with many genes, on a made score that adds up over the steps.

python -m benchmarks.many_genes [--genes 1000] [--plans 300] [--workers 1 16]

It searches in memory, one plan at a time and with packets under way, and prints milliseconds per plan after the first
40.  Equal digests of scores say that two versions of the code made the same trials.
"""

from __future__ import annotations

import argparse
import hashlib
import time

import numpy as np

from benchmarks import methods
from benchmarks.arguments import positive
from benchmarks.peer_list import DEFAULTS
from stepfront.search.genomes.encodings import Levels, Stages
from stepfront.search.initial_plans.plan_kinds import PlanSource

WIDTHS = (0.25, 0.5, 0.75, 1.0)
PACKET = 5
"""Plans that travel together where there are several workers."""

BEGIN = 40
"""Plans that are not timed: the first generation, which needs no proposal."""


def measured(genes: int, plans: int, workers: int) -> tuple[float, str]:
    """Return milliseconds of the processor per plan, and the digest of all scores."""
    gap = np.array([0.6, 0.2, 0.06, 0.0]) * np.random.default_rng(0).uniform(0.1, 1, (genes, 1))
    cost = np.array([0.05, 0.2, 0.5, 1.0]) / genes
    source = PlanSource(Stages(genes, WIDTHS, False, genes), cost, np.linspace(4, -4, genes), lambda: gap, 0)
    units, seconds = np.arange(genes), list[float]()

    def score(levels: Levels) -> tuple[float, float]:
        seconds.append(time.process_time())
        fid = np.exp(2 + 4 * gap[units, levels].sum() / gap[:, 0].sum())
        return float(fid), float(cost[levels].sum())

    packet = PACKET if workers > 1 else 1
    settings = (DEFAULTS.initial_plans, DEFAULTS.variation, DEFAULTS.screen)
    scores = methods.ours(source, score, plans, 0, *settings, in_flight=workers, packet=packet)
    timed = 1000 * (seconds[-1] - seconds[BEGIN]) / (len(seconds) - 1 - BEGIN)
    return timed, hashlib.sha256(scores.tobytes()).hexdigest()[:12]


def main() -> None:
    """Search with each number of workers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_genes", description=__doc__)
    parser.add_argument("--genes", type=positive, default=1000)
    parser.add_argument("--plans", type=positive, default=300, help=f"more than {BEGIN}")
    parser.add_argument("--workers", type=positive, nargs="+", default=[1, 16])
    given = parser.parse_args()
    if given.plans <= BEGIN:
        parser.error(f"argument --plans: {given.plans} plans are not more than {BEGIN}")
    for workers in given.workers:
        took, digest = measured(given.genes, given.plans, workers)
        print(f"{given.genes} genes, {workers} workers: {took:.1f} ms per plan, scores {digest}", flush=True)


if __name__ == "__main__":
    main()
