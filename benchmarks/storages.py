"""Time `ask` and `tell` with 1,000 genes in every storage, with an analytic score and the default screening.

Run it with `make bench-storages`; it writes docs/bench-storages.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from optuna.storages import BaseStorage, InMemoryStorage

from benchmarks.markdown import markdown
from stepfront.files import write_text
from stepfront.search.algorithm.nsga2 import BlockNSGAII
from stepfront.search.algorithm.screening import make_screening
from stepfront.search.algorithm.surrogate import PlanFeatures
from stepfront.search.config import RunSettings
from stepfront.search.genomes.candidates import UnitSums
from stepfront.search.genomes.encodings import Steps
from stepfront.search.initial_plans.plan_kinds import PlanSource, make_initial_plans
from stepfront.search.records.versions import versions
from stepfront.search.study.budget import Limits
from stepfront.search.study.ledger import Ledger
from stepfront.search.study.optuna_storage import open_storage
from stepfront.trainers.evaluation import Evaluation

WIDTHS = (0.25, 0.5, 0.75, 1.0)
GENES = 1000
TRIALS = 1000


def storage_rows(work: Path) -> pd.DataFrame:
    """Return one row per storage: medians of the first and the last hundred of 1,000 trials in ms, and file size.

    Beside each search runs one whose trials have no parameters, trial by trial, so that both meet the same load.
    """
    rows = []
    for name in ("memory", "journal", "SQLite"):
        with tempfile.TemporaryDirectory(dir=work) as first, tempfile.TemporaryDirectory(dir=work) as second:
            described, plain = _Timed(_storage(name, first), True), _Timed(_storage(name, second), False)
            for _ in range(TRIALS):
                plain.trial()
                described.trial()
            sizes = [sum(f.stat().st_size for f in Path(place).iterdir()) / 1e6 for place in (first, second)]
        early, ask, tell = (
            1000 * statistics.median(times)
            for times in (described.asks[50:150], described.asks[TRIALS - 100 :], described.tells[TRIALS - 100 :])
        )
        without = 1000 * (
            statistics.median(plain.asks[TRIALS - 100 :]) + statistics.median(plain.tells[TRIALS - 100 :])
        )
        rows.append(
            {
                "storage": name,
                "ask, trials 50-150 (ms)": f"{early:.1f}",
                "ask, last 100 (ms)": f"{ask:.1f}",
                "tell, last 100 (ms)": f"{tell:.1f}",
                "ask + tell, last 100 (ms)": f"{ask + tell:.1f}",
                "the same without parameters (ms)": f"{without:.1f}",
                "ratio": f"{(ask + tell) / without:.2f}",
                "size after 1,000 trials (MB)": f"{sizes[0]:.1f}",
                "without parameters (MB)": f"{sizes[1]:.1f}",
            }
        )
    return pd.DataFrame(rows)


def _storage(name: str, directory: str) -> BaseStorage:
    if name == "memory":
        return InMemoryStorage()
    return open_storage("journal" if name == "journal" else None, Path(directory))


class _Timed:
    """A search with an analytic score, whose `ask` and `tell` are timed in seconds."""

    def __init__(self, storage: BaseStorage, described: bool) -> None:
        self.asks: list[float] = []
        self.tells: list[float] = []
        self._encoding = encoding = Steps(GENES, WIDTHS, False)
        self._worth, self._cost = np.linspace(0.5, 2, GENES), np.array([1.0, 4.0, 9.0, 16.0])
        gap = self._worth[:, None] ** 2 * (3 - np.arange(4))  # of the right shape, but wrong: the model has to learn
        source = PlanSource(encoding, self._cost, np.linspace(-5, 5, GENES), lambda: gap, 0)
        defaults = RunSettings()
        features = PlanFeatures(encoding, gap)
        costs = UnitSums(np.tile(self._cost, (GENES, 1)))
        screening = make_screening(defaults.screen, encoding, lambda: features, lambda plans: costs(plans)[:, None])
        initial = make_initial_plans(defaults.initial_plans, source)
        screen = defaults.screen
        sampler = BlockNSGAII(
            encoding, defaults.variation, 0, initial, screen.offspring, screening, neighbours=screen.neighbours,
            climb=screen.steps_of_climb,
        )  # fmt: skip
        self._ledger = Ledger(
            storage,
            sampler,
            ("fid", "gflops"),
            (),
            Limits(trials=TRIALS),
            {},
            {"gflops": 16.0 * GENES, "latency_ms": 1.0},
            encoding=encoding if described else None,
        )
        assert screening is not None
        screening.watch(self._ledger.progress)

    def trial(self) -> None:
        """Ask for a plan and tell its score."""
        begin = time.perf_counter()
        asked = self._ledger.ask()
        self.asks.append(time.perf_counter() - begin)
        assert asked is not None
        levels = self._encoding.unpack(asked.genome)
        fid, gflops = float(((3 - levels) * self._worth).sum()), float(self._cost[levels].sum())
        begin = time.perf_counter()
        self._ledger.tell(asked.number, Evaluation(fid, gflops, 1.0, "analytic", 1, 0), "here")
        self.tells.append(time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        table = storage_rows(Path(work))
    text = (
        f"# `ask` and `tell`\n\nMade by `make bench-storages` on {time.strftime('%Y-%m-%d')}, load"
        f" {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores; {', '.join(f'{k} {v}' for k, v in versions().items())}."
        f"\n\n{GENES:,} genes, {TRIALS:,} trials with an analytic score, the default initial plans and screening (a"
        " model fitted to the trials chooses among 32 children), one process; medians. The parameters are those that"
        " describe each plan to optuna-dashboard. The search without them ran beside, trial by trial.\n\n"
    )
    write_text(given.docs / "bench-storages.md", text + markdown(table) + "\n")
    print(table.to_string())


if __name__ == "__main__":
    main()
