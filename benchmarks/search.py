"""Measure hypervolume against evaluations, method by method.

Run it with `make bench-search`; it writes docs/bench-search.md and its figure.

On a space small enough to enumerate (6 stages, 4 widths) the true front is known; at 10 and 20 genes the union of all
methods' fronts replaces it.  All methods use the supernet of the quickstart, which is trained if it is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import methods
from benchmarks.enumerate import enumerate_plans
from benchmarks.markdown import markdown
from benchmarks.problem import load_problem
from stepfront.search.algorithm.encodings import Encoding, Levels
from stepfront.search.config import RunSettings
from stepfront.search.initial_plans.plan_kinds import PlanSource
from stepfront.search.pareto import front_indices, hypervolume, hypervolume_history
from stepfront.search.records.versions import versions
from stepfront.trainers.networks.card import read_card

BUDGETS = (25, 50, 100, 150, 200, 400)
DEFAULTS = RunSettings()
"""The default settings."""

Runner = Callable[[PlanSource, methods.Score, int, int], np.ndarray]


@dataclass(frozen=True)
class Method:
    """A name for the table and how to run it: (source, score, budget, seed) -> scores in order."""

    name: str
    run: Runner


def _ours(source: PlanSource, score: methods.Score, budget: int, seed: int, in_flight: int = 1) -> np.ndarray:
    settings = DEFAULTS.initial_plans, DEFAULTS.variation, DEFAULTS.screen
    return methods.ours(source, score, budget, seed, *settings, in_flight=in_flight)


def _with_dp(source: PlanSource, score: methods.Score, budget: int, seed: int) -> np.ndarray:
    initial = {"dp" if kind == "gap" else kind: count for kind, count in DEFAULTS.initial_plans.items()}
    return methods.ours(source, score, budget, seed, initial, DEFAULTS.variation, DEFAULTS.screen)


def _unseeded(source: PlanSource, score: methods.Score, budget: int, seed: int) -> np.ndarray:
    return methods.ours(source, score, budget, seed, {"random": 20}, DEFAULTS.variation)


def _unscreened(source: PlanSource, score: methods.Score, budget: int, seed: int) -> np.ndarray:
    return methods.ours(source, score, budget, seed, DEFAULTS.initial_plans, DEFAULTS.variation)


def _by_encoding(function: Callable[..., np.ndarray], **options: int) -> Runner:
    return partial(_call, function, options)


def _call(
    function: Callable[..., np.ndarray],
    options: dict[str, int],
    source: PlanSource,
    score: methods.Score,
    budget: int,
    seed: int,
) -> np.ndarray:
    return function(source.encoding, score, budget, seed, **options)


METHODS = (
    Method("ours, default", _ours),
    Method("ours, without screening", _unscreened),
    Method("ours, without initial plans and screening", _unseeded),
    Method("all monotone plans", _by_encoding(methods.monotone_plans)),
    Method("pymoo NSGA-II (integers, population 20)", _by_encoding(methods.pymoo_shipped, population=20)),
    Method("Optuna NSGAIISampler (population 20)", _by_encoding(methods.optuna_shipped, population=20)),
    Method("Optuna NSGAIISampler (as shipped, 50)", _by_encoding(methods.optuna_shipped, population=50)),
    Method("DDSM's algorithm", _by_encoding(methods.ddsm)),
    Method("random, no repeats", _by_encoding(methods.random_plans)),
)

IN_FLIGHT = tuple(Method(f"ours, default, {n} plans in flight", partial(_ours, in_flight=n)) for n in (2, 4, 16))
"""Two workers, two that get their next plan early, and eight of those; on the space with a known front alone."""


DP = Method("ours, initial plans dp in place of gap", _with_dp)
"""The dynamic programme over times and widths; on the space with a known front alone."""


@dataclass
class TableScore:
    """Scores looked up in an enumeration."""

    encoding: Encoding
    scores: dict[str, tuple[float, float]]

    def __call__(self, levels: Levels) -> tuple[float, float]:
        return self.scores[self.encoding.pack(levels)]


class SampledScore:
    """Scores by sampling, once per plan and process: methods share many plans."""

    def __init__(self, run: Path, stages: int, steps: int, images: int) -> None:
        self.problem = load_problem(run, stages, steps, images)
        self.kept: dict[str, tuple[float, float]] = {}

    def __call__(self, levels: Levels) -> tuple[float, float]:
        genome = self.problem.encoding.pack(levels)
        if genome not in self.kept:
            self.kept[genome] = (self.problem.fid(levels), self.problem.gflops(levels))
        return self.kept[genome]


def shares(scores: np.ndarray, reference: list[float], true_volume: float) -> np.ndarray:
    """Return the hypervolume after each evaluation as a share of the true one."""
    return hypervolume_history(scores, reference) / true_volume


def enumerated(run: Path, work: Path, seeds: int, budget: int) -> tuple[pd.DataFrame, dict[str, Curves], pd.DataFrame]:
    """Return the table of shares on the small space, the curves of each method, and the enumeration."""
    table = enumerate_plans(run, 6, 18, 512, work)
    problem = load_problem(run, 6, 18, 512)
    lookup = dict(zip(table["genome"], zip(table["fid"], table["gflops"], strict=True), strict=True))
    score = TableScore(problem.encoding, lookup)
    everything = table[["fid", "gflops"]].to_numpy()
    reference = reference_point(score, problem.encoding)
    volume = hypervolume(everything[front_indices(everything)], reference)
    curves: dict[str, Curves] = {}
    for method in (METHODS[0], *IN_FLIGHT, DP, *METHODS[1:]):
        found = [method.run(problem.plan_source(seed), score, budget, seed) for seed in range(seeds)]
        curves[method.name] = Curves.of(found, reference, volume, budget, 512)
        print(f"6 genes: {method.name}: {np.median(curves[method.name].shares[:, 99]):.4f} at 100", flush=True)
    return pd.DataFrame([_row(name, found) for name, found in curves.items()]), curves, table


def reference_point(score: methods.Score, encoding: Encoding) -> list[float]:
    """Return the reference point as a search sets it: 1.1 times the worst uniform FID, 1.05 times the full cost."""
    uniform = [score(np.full(encoding.units, level)) for level in range(encoding.highest + 1)]
    return [1.1 * max(fid for fid, _ in uniform), 1.05 * max(gflops for _, gflops in uniform)]


def _padded(curve: np.ndarray, budget: int) -> np.ndarray:
    return np.concatenate([curve, np.full(max(0, budget - len(curve)), curve[-1])])[:budget]


@dataclass(frozen=True)
class Curves:
    """Shares of the true hypervolume, and network TFLOPs spent, after each evaluation: [seeds, budget] each."""

    shares: np.ndarray
    tflops: np.ndarray

    @classmethod
    def of(cls, found: Sequence[np.ndarray], reference: list[float], volume: float, budget: int, images: int) -> Curves:
        """Return the curves of scores [N, 2] per seed, each score of so many images."""
        reached = [_padded(shares(scores, reference, volume), budget) for scores in found]
        spent = [_padded(np.cumsum(scores[:, 1]) * images / 1000, budget) for scores in found]
        return cls(np.array(reached), np.array(spent))

    def to(self, share: float) -> tuple[float, float]:
        """Return the evaluations and the TFLOPs to a share, medians over seeds; infinite where it was not reached."""
        first = [np.argmax(curve >= share) if (curve >= share).any() else None for curve in self.shares]
        counts = [np.inf if i is None else float(i) + 1 for i in first]
        spent = [np.inf if i is None else float(row[i]) for i, row in zip(first, self.tflops, strict=True)]
        return float(np.median(counts)), float(np.median(spent))


def _row(name: str, curves: Curves) -> dict[str, object]:
    medians, budget = np.median(curves.shares, axis=0), curves.shares.shape[1]
    counts, spent = curves.to(0.99)
    row: dict[str, object] = {"method": name}
    row |= {f"{b}": f"{medians[b - 1]:.3f}" for b in BUDGETS if b <= budget}
    row["evaluations to 99%"] = f"{counts:.0f}" if np.isfinite(counts) else f"> {budget}"
    most = float(np.median(curves.tflops[:, -1]))
    row["network TFLOPs to 99%"] = f"{spent:.2f}" if np.isfinite(spent) else f"> {most:.2f}"
    return row | {"network TFLOPs at 100": f"{np.median(curves.tflops[:, min(100, budget) - 1]):.2f}"}


_SAMPLED: SampledScore | None = None


def _kept(directory: Path, key: tuple[int, int]) -> Path:
    """Return the file of the scores of one method and seed; an interrupted benchmark continues from these."""
    return directory / f"{METHODS[key[0]].name.replace(' ', '-').replace(',', '')}-{key[1]}.npy"


def _start_sampling(run: Path, stages: int, images: int) -> None:
    import torch

    global _SAMPLED
    torch.set_num_threads(1)
    _SAMPLED = SampledScore(run, stages, 20, images)


def _sampled_run(job: tuple[int, int, int]) -> tuple[int, int, np.ndarray]:
    index, seed, budget = job
    assert _SAMPLED is not None
    return index, seed, METHODS[index].run(_SAMPLED.problem.plan_source(seed), _SAMPLED, budget, seed)


def sampled(run: Path, work: Path, stages: int, seeds: int, budget: int, images: int) -> pd.DataFrame:
    """Return the table of a larger space: shares of the hypervolume of the union of all fronts."""
    # Scores of another supernet, or of other defaults, are not these.
    made_of = read_card(run / "supernet").digest + DEFAULTS.model_dump_json(
        include={"initial_plans", "variation", "screen"}
    )
    kept = work / f"runs-{stages}-{images}-{budget}-{hashlib.sha256(made_of.encode()).hexdigest()[:8]}"
    kept.mkdir(parents=True, exist_ok=True)
    every = [(m, seed) for seed in range(seeds) for m in range(len(METHODS))]
    found = {key: np.load(_kept(kept, key)) for key in every if _kept(kept, key).exists()}
    jobs = [(m, seed, budget) for m, seed in every if (m, seed) not in found]
    if jobs:
        context = multiprocessing.get_context("spawn")
        begin = time.monotonic()
        with context.Pool(2, _start_sampling, (run, stages, images)) as pool:
            for done, (index, seed, scores) in enumerate(pool.imap_unordered(_sampled_run, jobs), 1):
                found[(index, seed)] = scores
                np.save(_kept(kept, (index, seed)), scores)
                left = (time.monotonic() - begin) / done * (len(jobs) - done)
                print(f"{stages} genes: {done}/{len(jobs)} runs, {left / 60:.1f} min left", flush=True)
    union = np.vstack(list(found.values()))
    problem = load_problem(run, stages, 20, images)
    full = problem.gflops(np.full(problem.encoding.units, problem.encoding.highest))
    cheapest = problem.fid(np.zeros(problem.encoding.units, dtype=np.int64))
    reference = [1.1 * cheapest, 1.05 * full]
    volume = hypervolume(union[front_indices(union)], reference)
    rows = []
    for index, method in enumerate(METHODS):
        runs = [found[(index, seed)] for seed in range(seeds)]
        rows.append(_row(method.name, Curves.of(runs, reference, volume, budget, images)))
    return pd.DataFrame(rows)


def draw(curves: dict[str, Curves], path: Path) -> None:
    """Draw medians and quartiles of the shares against evaluations, and against what the networks computed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    colours = ["#d55e00", "#e69f00", "#cc79a7", "#000000", "#009e73", "#56b4e9", "#0072b2", "#f0e442", "#999999"]
    for colour, (name, found) in zip(colours, curves.items(), strict=False):
        low, middle, high = np.percentile(found.shares, (25, 50, 75), axis=0)
        line = {"color": colour, "label": name, "linewidth": 2.2 if name.startswith("ours, d") else 1.3}
        x = np.arange(1, found.shares.shape[1] + 1)
        left.plot(x, middle, **line)
        left.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        right.plot(np.median(found.tflops, axis=0), middle, **line)
    for axes in (left, right):
        axes.axhline(0.99, color="#666666", linewidth=0.8, linestyle=":")
        axes.set(xscale="log", ylim=(0.85, 1.003))
        axes.grid(alpha=0.25)
    left.set(xlim=(10, 400), xlabel="FID evaluations", ylabel="hypervolume, share of the true front's")
    right.set(xlabel="network TFLOPs of the evaluations", xlim=(0.3, None))
    right.legend(fontsize=8, loc="lower right")
    figure.savefig(path, metadata={"Date": None})


def proxy_lines(table: pd.DataFrame) -> str:
    """Return Kendall's tau of the cheap proxies, over the complete space and over its better half, as Markdown."""
    from stepfront.search.algorithm.proxies import rank_correlation

    good = table[table["fid"] <= table["fid"].median()]
    rows = []
    for proxy in ("gap", "paired"):
        taus = [rank_correlation(t[proxy].to_numpy(), t["fid"].to_numpy()) for t in (table, good)]
        rows.append({"proxy": proxy, "tau, all plans": f"{taus[0]:.3f}", "tau, better half": f"{taus[1]:.3f}"})
    return markdown(pd.DataFrame(rows))


def _shown(words: list[str]) -> str:
    """Return the options that determine the figures, without the paths."""
    keep = [i for i, word in enumerate(words) if word in ("--seeds", "--genes") or word.startswith("--sampled")]
    return " ".join(f"{words[i]} {words[i + 1]}" for i in keep)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/digits"), help="run with a supernet")
    parser.add_argument("--work", type=Path, default=Path("runs/bench-search"), help="folder for scores")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--genes", default="10,20", help="numbers of genes of the larger spaces")
    parser.add_argument("--sampled-seeds", type=int, default=3, help="number of seeds on the larger spaces; 0: none")
    parser.add_argument("--sampled-budget", type=int, default=200)
    parser.add_argument("--sampled-images", type=int, default=128)
    given = parser.parse_args()
    if not (given.run / "supernet" / "supernet.json").exists():
        as_measured = ["--set", "training.rule=sandwich", "--set", "training.steps=1500"]
        subprocess.run([sys.executable, "-m", "stepfront", "train", "configs/digits.yaml", *as_measured], check=True)
    given.work.mkdir(parents=True, exist_ok=True)
    small, curves, enumeration = enumerated(given.run, given.work, given.seeds, BUDGETS[-1])
    draw({method.name: curves[method.name] for method in METHODS}, given.docs / "bench-search.svg")
    sections = [
        f"# Search benchmark\n\nMade by `make bench-search` (`python -m benchmarks.search {_shown(sys.argv[1:])}`)"
        f" on {time.strftime('%Y-%m-%d')}.\n\nVersions: {', '.join(f'{k} {v}' for k, v in versions().items())}.\n",
        "## A space with a known front\n\nThe digits supernet of the quickstart, 6 stages of 3 DDIM steps, 4 widths:"
        f" all {len(enumeration):,} plans on one noise, 512 images. Median over {given.seeds} seeds of the hypervolume"
        " as a share of the true one (reference: 1.1 x the worst uniform FID, 1.05 x full cost), by FID"
        " evaluations.\n\n" + markdown(small) + "\n\n![hypervolume against evaluations](bench-search.svg)\n",
        "## Proxies against FID, over the same plans\n\n" + proxy_lines(enumeration) + "\n",
    ]
    if given.sampled_seeds:
        for stages in map(int, given.genes.split(",")):
            table = sampled(
                given.run, given.work, stages, given.sampled_seeds, given.sampled_budget, given.sampled_images
            )
            sections.append(
                f"## {stages} genes\n\n20 DDIM steps in {stages} stages, {given.sampled_images} images; share of the"
                f" hypervolume of the union of all methods' and seeds' fronts, median of {given.sampled_seeds} seeds."
                "\n\n" + markdown(table) + "\n"
            )
    (given.docs / "bench-search.md").write_text("\n".join(sections), encoding="utf-8")
    print(f"written: {given.docs / 'bench-search.md'}")


if __name__ == "__main__":
    main()
