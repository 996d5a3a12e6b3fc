"""Measure what the front of an earlier search is worth on other images.

Run it with `make bench-transfer`; it writes docs/bench-transfer.md.  A search on Fashion-MNIST starts cold (uniform and
random plans), with gap plans, with the defaults, and warm: with the front of a finished search on digits (`--from`).
All have the same number of steps and our own ledger, sampler and screening.  Each plan is sampled once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import methods
from benchmarks.markdown import markdown
from benchmarks.problem import load_problem
from benchmarks.search import SampledScore
from stepfront.search.algorithm.encodings import Levels
from stepfront.search.config import RunSettings
from stepfront.search.pareto import front_indices, hypervolume, hypervolume_history
from stepfront.search.records.run_directory import find_search, warm_settings
from stepfront.search.records.versions import versions
from stepfront.trainers.networks.card import read_card

COLD = "cold: 4 uniform, 16 random"


class _KeptScore:
    """Scores that both processes and later calls share, one small file per plan."""

    def __init__(self, score: SampledScore, directory: Path) -> None:
        self._score, self._directory = score, directory

    def __call__(self, levels: Levels) -> tuple[float, float]:
        path = self._directory / f"{self._score.problem.encoding.pack(levels)}.json"
        if not path.exists():
            found = self._score(levels)
            beside = path.with_suffix(f".{multiprocessing.current_process().pid}")
            beside.write_text(json.dumps(found))
            beside.replace(path)
        fid, gflops = json.loads(path.read_text())
        return fid, gflops


def starts(earlier: Path) -> dict[str, dict[str, int]]:
    """Return the first generations that are compared."""
    warm = warm_settings(RunSettings(), [earlier]).initial_plans
    front = {name: count for name, count in warm.items() if name.startswith("front:")}
    return {
        COLD: {"uniform": 4, "random": 16},
        "4 uniform, 16 gap": {"uniform": 4, "gap": 16},
        "defaults: 4 uniform, 8 gap, 8 monotone": dict(RunSettings().initial_plans),
        "warm: 4 uniform, 8 of the front": {"uniform": 4} | dict.fromkeys(front, 8),
        "warm: 4 uniform, 16 of the front": {"uniform": 4} | front,
        "warm, as --from does: those and the defaults": dict(warm),
    }


_SCORE: _KeptScore | None = None


def _begin(run: Path, images: int, directory: Path) -> None:
    import torch

    global _SCORE
    torch.set_num_threads(1)
    _SCORE = _KeptScore(SampledScore(run, 10, 20, images), directory)


def _run(job: tuple[str, dict[str, int], int, int]) -> tuple[str, int, np.ndarray]:
    name, seeds, seed, budget = job
    assert _SCORE is not None
    problem = _SCORE._score.problem
    screen = RunSettings().screen
    return name, seed, methods.ours(problem.plan_source(seed), _SCORE, budget, seed, seeds, None, screen)


def measure(run: Path, earlier: Path, work: Path, seeds: int, budget: int, images: int) -> pd.DataFrame:
    """Return one row per start: medians over seeds, and the evaluations to the cold start's final hypervolume."""
    kept = work / f"scores-{images}-{hashlib.sha256(read_card(run / 'supernet').digest.encode()).hexdigest()[:8]}"
    kept.mkdir(parents=True, exist_ok=True)
    begins = starts(earlier)
    jobs = [(name, wanted, seed, budget) for seed in range(seeds) for name, wanted in begins.items()]
    curves: dict[str, dict[int, np.ndarray]] = {name: {} for name in begins}
    begin = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(2, _begin, (run, images, kept)) as pool:
        for done, (name, seed, scores) in enumerate(pool.imap_unordered(_run, jobs), 1):
            curves[name][seed] = scores
            left = (time.monotonic() - begin) / done * (len(jobs) - done)
            print(f"{done}/{len(jobs)} searches, {left / 60:.1f} min left", flush=True)
    problem = load_problem(run, 10, 20, images)
    everything = np.vstack([scores for found in curves.values() for scores in found.values()])
    narrow = json.loads((kept / f"{problem.encoding.pack(np.zeros(10, dtype=np.int64))}.json").read_text())[0]
    reference = [1.1 * narrow, 1.05 * float(everything[:, 1].max())]
    union = hypervolume(everything[front_indices(everything)], reference)
    volumes = {
        name: np.array([hypervolume_history(found[s], reference) / union for s in range(seeds)])
        for name, found in curves.items()
    }
    goal = np.median(volumes[COLD][:, -1])
    rows = []
    for name, values in volumes.items():
        reached = [int(np.argmax(v >= goal)) + 1 if (v >= goal).any() else budget + 1 for v in values]
        row = {"first generation": name} | {str(n): f"{np.median(values[:, n - 1]):.3f}" for n in _shown(budget)}
        row["to the cold start's final, median"] = f"{np.median(reached):.0f}"
        row["range"] = f"{min(reached)}-{max(reached)}"
        rows.append(row)
    return pd.DataFrame(rows)


def _shown(budget: int) -> list[int]:
    return [n for n in (10, 20, 30, 40, 60, 80, 120) if n <= budget]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/fashion-mnist"), help="run with a supernet")
    parser.add_argument("--earlier", type=Path, default=Path("runs/digits"), help="finished search of 20 steps")
    parser.add_argument("--work", type=Path, default=Path("runs/bench-transfer"), help="folder for scores")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=60)
    parser.add_argument("--images", type=int, default=128)
    given = parser.parse_args()
    table = measure(given.run, find_search(given.earlier)[0], given.work, given.seeds, given.budget, given.images)
    options = f"--seeds {given.seeds} --budget {given.budget} --images {given.images}"
    text = (
        f"# Starting from an earlier search\n\nMade by `make bench-transfer` ({options}) on"
        f" {time.strftime('%Y-%m-%d')}; {', '.join(f'{k} {v}' for k, v in versions().items())}.\n\n"
        "Fashion-MNIST (16x16, the small network of `configs/fashion_mnist.yaml`), 20 DDIM steps in 10 stages, with"
        " several first generations. Warm starts take the front of the quickstart's search on digits. The table shows"
        f" the share of the hypervolume of the union of all fronts, median of {given.seeds} seeds, by FID evaluations."
        f" Its last columns show the evaluations until the cold start's median after {given.budget} is reached. All"
        " have the default screening.\n\n"
    )
    (given.docs / "bench-transfer.md").write_text(text + markdown(table) + "\n", encoding="utf-8")
    print(table.to_string())


if __name__ == "__main__":
    main()
