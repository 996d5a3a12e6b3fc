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

from benchmarks.search import markdown
from stepfront.files import write_text
from stepfront.search.algorithm.encodings import Steps
from stepfront.search.algorithm.nsga2 import BlockNSGAII
from stepfront.search.algorithm.screening import make_screening
from stepfront.search.algorithm.surrogate import PlanFeatures
from stepfront.search.config import RunSettings
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
    """Return one row per storage: medians of the first and the last hundred of 1,000 trials in ms, and file size."""
    rows = []
    for name in ("memory", "journal", "SQLite"):
        with tempfile.TemporaryDirectory(dir=work) as scratch:
            directory = Path(scratch)
            storage: BaseStorage = (
                InMemoryStorage()
                if name == "memory"
                else open_storage("journal" if name == "journal" else None, directory)
            )
            asks, tells = _run(storage)
            size = sum(f.stat().st_size for f in directory.iterdir()) / 1e6
        early, ask, tell = (
            1000 * statistics.median(times) for times in (asks[50:150], asks[TRIALS - 100 :], tells[TRIALS - 100 :])
        )
        rows.append(
            {
                "storage": name,
                "ask, trials 50-150 (ms)": f"{early:.1f}",
                "ask, last 100 (ms)": f"{ask:.1f}",
                "tell, last 100 (ms)": f"{tell:.1f}",
                "ask + tell, last 100 (ms)": f"{ask + tell:.1f}",
                "size after 1,000 trials (MB)": f"{size:.1f}",
            }
        )
    return pd.DataFrame(rows)


def _run(storage: BaseStorage) -> tuple[list[float], list[float]]:
    encoding = Steps(GENES, WIDTHS, False)
    worth, cost = np.linspace(0.5, 2, GENES), np.array([1.0, 4.0, 9.0, 16.0])
    gap = worth[:, None] ** 2 * (3 - np.arange(4))  # of the right shape, but wrong, so that the model has to learn
    source = PlanSource(encoding, cost, np.linspace(-5, 5, GENES), lambda: gap, 0)
    defaults = RunSettings()
    features = PlanFeatures(encoding, gap)
    screening = make_screening(defaults.screen, encoding, lambda: features, lambda levels: [float(cost[levels].sum())])
    initial = make_initial_plans(defaults.initial_plans, source)
    sampler = BlockNSGAII(encoding, defaults.variation, 0, initial, defaults.screen.offspring, screening)
    ledger = Ledger(
        storage, sampler, ("fid", "gflops"), (), Limits(trials=TRIALS), {}, {"gflops": 16.0 * GENES, "latency_ms": 1.0}
    )
    assert screening is not None
    screening.watch(ledger.progress)
    asks, tells = [], []
    for _ in range(TRIALS):
        begin = time.perf_counter()
        asked = ledger.ask()
        asks.append(time.perf_counter() - begin)
        assert asked is not None
        levels = encoding.unpack(asked.genome)
        evaluation = Evaluation(float(((3 - levels) * worth).sum()), float(cost[levels].sum()), 1.0, "analytic", 1, 0)
        begin = time.perf_counter()
        ledger.tell(asked.number, evaluation, "here")
        tells.append(time.perf_counter() - begin)
    return asks, tells


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
        " model fitted to the trials chooses among 32 children), one process; medians.\n\n"
    )
    write_text(given.docs / "bench-storages.md", text + markdown(table) + "\n")
    print(table.to_string())


if __name__ == "__main__":
    main()
