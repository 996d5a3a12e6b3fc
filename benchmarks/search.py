"""Measure hypervolume against evaluations, method by method.

Run it with `make bench-search`; it writes docs/bench-search.md and its figure.

On a space small enough to enumerate (6 stages, 4 widths) the true front is known.  Scores are those of the published
tables of measured plans (benchmarks/plan_table.py), so that neither a supernet nor images are needed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import methods
from benchmarks.arguments import positive
from benchmarks.markdown import markdown
from benchmarks.plan_table import ENUMERATED, EnumeratedTable, read_enumerated_table
from benchmarks.surrogate_table import true_hypervolume
from stepfront.search.algorithm.proxies import gap_score, rank_correlation
from stepfront.search.config import RunSettings
from stepfront.search.initial_plans.plan_kinds import PlanSource
from stepfront.search.pareto import hypervolume_history
from stepfront.search.records.versions import versions

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
"""Two workers, two that get their next plan early, and eight of those."""


def shares(scores: np.ndarray, reference: list[float], true_volume: float) -> np.ndarray:
    """Return the hypervolume after each evaluation as a share of the true one."""
    return hypervolume_history(scores, reference) / true_volume


def measure(table: EnumeratedTable, seeds: int, budget: int) -> dict[str, Curves]:
    """Return the curves of each method on a table."""
    reference, volume, images = table.reference_point(), true_hypervolume(table), int(table.about["images"])
    curves: dict[str, Curves] = {}
    for method in (METHODS[0], *IN_FLIGHT, *METHODS[1:]):
        found = [method.run(table.plan_source(seed), table, budget, seed) for seed in range(seeds)]
        curves[method.name] = Curves.of(found, reference, volume, budget, images)
        print(f"{method.name}: {np.median(curves[method.name].shares[:, -1]):.4f} at {budget}", flush=True)
    return curves


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


def proxy_lines(table: EnumeratedTable) -> str:
    """Return Kendall's tau of the cheap proxies, over the complete space and over its better half, as Markdown."""
    gap = gap_score(table.encoding, table.gap)
    plans = np.indices((len(table.widths),) * table.units).reshape(table.units, -1).T
    scores = {"gap": np.array([gap(levels) for levels in plans]), "paired": table.paired}
    better = table.fids <= np.median(table.fids)
    rows = []
    for proxy, values in scores.items():
        taus = [rank_correlation(values[part], table.fids[part]) for part in (better | True, better)]
        rows.append({"proxy": proxy, "tau, all plans": f"{taus[0]:.3f}", "tau, better half": f"{taus[1]:.3f}"})
    return markdown(pd.DataFrame(rows))


def section(name: str, table: EnumeratedTable, curves: Mapping[str, Curves], figure: str) -> str:
    """Return the section of one space as Markdown, with its figure if it has one."""
    about = table.about
    seeds = len(next(iter(curves.values())).shares)
    rows = pd.DataFrame([_row(method, found) for method, found in curves.items()])
    shown = f"\n![hypervolume against evaluations]({figure})\n" if figure else ""
    return f"""## `{name}`

{about["supernet"]}. {about["sampler"]}, {len(table.widths)} widths: all {table.count:,} plans.
{about["score"]}. Median over {seeds} seeds of the hypervolume as a share of the true one
(reference: 1.1 x the worst uniform FID, 1.05 x full cost), by FID evaluations.

{markdown(rows)}
{shown}
Proxies against FID, over the same plans:

{proxy_lines(table)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--seeds", type=positive, default=10)
    given = parser.parse_args()
    used = ", ".join(f"{k} {v}" for k, v in versions().items())
    parts = [
        f"# Search benchmark\n\nMade by `make bench-search` (`python -m benchmarks.search --seeds {given.seeds}`)"
        f" on {time.strftime('%Y-%m-%d')}.\n\nVersions: {used}.\n\nThe spaces are small enough that every plan was"
        " measured (`benchmarks/enumerated_tables/`), so their true fronts are known.\nOn 10 and 20 genes, and against"
        " stronger peers, methods are compared in [bench-peers.md](bench-peers.md).\n"
    ]
    for path in sorted(ENUMERATED.glob("*.json")):
        table = read_enumerated_table(path)
        curves = measure(table, given.seeds, BUDGETS[-1])
        figure = "bench-search.svg" if path.stem == "digits-6" else ""
        if figure:
            draw({method.name: curves[method.name] for method in METHODS}, given.docs / figure)
        parts.append(section(path.stem, table, curves, figure))
    (given.docs / "bench-search.md").write_text("\n".join(parts), encoding="utf-8")
    print(f"written: {given.docs / 'bench-search.md'}")


if __name__ == "__main__":
    main()
