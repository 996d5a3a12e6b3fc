"""Count the evaluations that a search needs whose plans come in packets, on the published surrogate tables.

python -m benchmarks.packets [--packet 5] [--workers 1 16] [--seeds 10] [--tables digits-10 fashion-0-4]
    [--offspring 32]

It prints the evaluations to 99 % of the true hypervolume, the median over seeds, and milliseconds of the processor per
plan.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from benchmarks import methods
from benchmarks.arguments import positive
from benchmarks.peer_list import DEFAULTS, OURS
from benchmarks.peers import Truth
from benchmarks.surrogate_table import TABLES, SurrogateTable, read_surrogate_table
from stepfront.search.config import ScreenSettings

BUDGET = 260


def evaluations(
    table: SurrogateTable, truth: Truth, packet: int, workers: int, seed: int, screen: ScreenSettings
) -> float:
    """Return the evaluations to 99 % of the true hypervolume; infinity where `BUDGET` of them are too few."""
    scores = methods.ours(
        table.plan_source(seed),
        table,
        BUDGET,
        seed,
        OURS,
        DEFAULTS.variation,
        screen,
        workers,
        packet=packet,
    )
    reached = np.flatnonzero(np.asarray(truth.shares(scores)) >= 0.99)
    return float(reached[0] + 1) if len(reached) else float("inf")


def main() -> None:
    """Search on each table with each number of workers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packets", description=__doc__)
    parser.add_argument("--packet", type=int, default=5, help="plans per packet")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--seeds", type=positive, default=10)
    parser.add_argument("--tables", nargs="+", default=["digits-10", "fashion-0-4"])
    default = DEFAULTS.screen.offspring
    parser.add_argument("--offspring", type=positive, default=default, help="children made per evaluated child")
    given = parser.parse_args()
    screen = DEFAULTS.screen.model_copy(update={"offspring": given.offspring})
    for name in given.tables:
        table = read_surrogate_table(TABLES / f"{name}.json")
        truth = Truth.of(table)
        for workers in given.workers:
            begin = time.process_time()
            found = [evaluations(table, truth, given.packet, workers, seed, screen) for seed in range(given.seeds)]
            cost = 1000 * (time.process_time() - begin) / (BUDGET * given.seeds)
            print(
                f"{name}, {workers} workers, packets of {given.packet}: {np.median(found):g} evaluations "
                f"({min(found):g} to {max(found):g}), {cost:.1f} ms per plan",
                flush=True,
            )


if __name__ == "__main__":
    main()
