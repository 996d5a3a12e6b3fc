"""Measure each choice of variation, initial plans and screening.

Run it with `make bench-variation`; it writes docs/bench-variation.md.  Scores are those of the published table of
measured plans of the digits supernet (6 stages, 4 widths).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

import stepfront.search.algorithm.variation as variation
from benchmarks import methods
from benchmarks.arguments import positive
from benchmarks.markdown import markdown
from benchmarks.plan_table import ENUMERATED, read_enumerated_table
from benchmarks.search import shares
from benchmarks.surrogate_table import true_hypervolume
from stepfront.arrays import Array
from stepfront.search.config import RunSettings, ScreenSettings, VariationSettings

RANDOM = {"random": 20}

BUDGET = 400
"""Evaluations of a search."""

IMAGES = 512
"""Images per score."""


@contextmanager
def operators(**replaced: object) -> Iterator[None]:
    """Replace operators of the search within the block."""
    before = {name: getattr(variation, name) for name in replaced}
    for name, value in replaced.items():
        setattr(variation, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(variation, name, value)


def gene_wise(rng: np.random.Generator, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cross genes one by one, as Optuna's sampler does with categoricals."""
    return np.where(rng.random(len(first)) < 0.5, first, second)


def row_cells(curves: Sequence[Array], gflops: Sequence[Array]) -> dict[str, str]:
    """Return the cells of a variant, of its shares of the true hypervolume and costs per image, [evaluations] per seed.

    `to 99%` counts evaluations, and `network TFLOPs` what their networks compute.
    """
    middle = np.median(np.array(curves), axis=0)
    reached = [(curve >= 0.99).argmax() if (curve >= 0.99).any() else None for curve in curves]
    spent = [each.cumsum() * IMAGES / 1000 for each in gflops]
    counts = [np.inf if at is None else at + 1 for at in reached]
    tflops = [np.inf if at is None else each[at] for at, each in zip(reached, spent, strict=True)]
    return {
        **{f"at {n}": f"{middle[n - 1]:.3f}" for n in (50, 100, 200)},
        **_quartiles("to 99%", counts, max(map(len, curves)), ".0f"),
        **_quartiles("network TFLOPs to 99%", tflops, float(np.median([each[-1] for each in spent])), ".2f"),
    }


def _quartiles(name: str, values: Sequence[float], most: float, digits: str) -> dict[str, str]:
    """Return the median of `values`, infinite where `most` was not enough, and their quartiles."""
    words = [
        format(value, digits) if np.isfinite(value) else f"> {most:{digits}}"
        for value in np.percentile(values, (25, 50, 75), method="higher")
    ]
    return {f"{name}, median": words[1], f"{name}, quartiles": f"{words[0]} to {words[2]}"}


def rows(seeds: int) -> Iterator[dict[str, str]]:
    """Yield one row per variant: median shares of the true hypervolume, and what 99% of it takes."""
    table = read_enumerated_table(ENUMERATED / "digits-6.json")
    reference, volume = table.reference_point(), true_hypervolume(table)

    def row(
        name: str,
        wanted: dict[str, int],
        settings: VariationSettings | None = None,
        screen: ScreenSettings = methods.NO_SCREEN,
    ) -> dict[str, str]:
        found = [
            methods.ours(table.plan_source(seed), table, BUDGET, seed, wanted, settings, screen)
            for seed in range(seeds)
        ]
        cells = row_cells([shares(scores, reference, volume) for scores in found], [s[:, 1] for s in found])
        print(f"{name}: {cells}", flush=True)
        return {"variant": name, **cells}

    yield row("random first generation, defaults otherwise, no screening", RANDOM)
    for value in (0.3, 0.7, 0.9):
        yield row(f"... crossover {value}", RANDOM, VariationSettings(crossover=value))
    for count in (2, 3):
        yield row(f"... up to {count} mutations", RANDOM, VariationSettings(mutations=count))
    for size in (10, 40):
        yield row(f"... population {size}", RANDOM, VariationSettings(population=size))
    for dropped in variation.MUTATIONS:
        with operators(MUTATIONS=tuple(m for m in variation.MUTATIONS if m is not dropped)):
            yield row(f"... without {dropped.__name__}", RANDOM)
    crossovers: tuple[tuple[str, Callable[..., np.ndarray]], ...] = (
        ("one-point crossover only", variation.one_point),
        ("two-point crossover only", variation.two_point),
        ("gene-wise crossover", gene_wise),
    )
    for name, crossover in crossovers:
        with operators(one_point=crossover, two_point=crossover):
            yield row(f"... {name}", RANDOM)
    mixes = {kind: {"uniform": 4, kind: 16} for kind in ("random", "cuts", "monotone", "snr", "gap")}
    mixes["gap + monotone"] = dict(RunSettings().initial_plans)
    for kind, wanted in mixes.items():
        label = "4 uniform + 8 gap + 8 monotone" if kind == "gap + monotone" else f"4 uniform + 16 {kind}"
        yield row(f"{label}, no screening", wanted)
        yield row(f"{label}, 8 by gap", wanted, None, ScreenSettings(proxy="gap", offspring=8))
        yield row(f"{label}, 32 by model", wanted, None, ScreenSettings(proxy="model", offspring=32))
    for offspring in (2, 8, 128):
        for proxy in ("gap", "model") if offspring != 8 else ("model",):  # 8 by the gap stand above
            screen = ScreenSettings.model_validate({"proxy": proxy, "offspring": offspring})
            yield row(f"4 uniform + 8 gap + 8 monotone, {offspring} by {proxy}", mixes["gap + monotone"], None, screen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--seeds", type=positive, default=10)
    given = parser.parse_args()
    table = pd.DataFrame(list(rows(given.seeds)))
    text = f"""# Variation, initial plans and screening

Made by `make bench-variation` (`python -m benchmarks.variation --seeds {given.seeds}`) on {time.strftime("%Y-%m-%d")},
on the measured plans of `digits-6` ([bench-search.md](bench-search.md)). Shares of the true hypervolume.
`network TFLOPs` is what the networks of the evaluations to 99% compute: what a search costs.

"""
    (given.docs / "bench-variation.md").write_text(text + markdown(table) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
