"""Measure whether a search gains from knowing which operators of variation paid in an earlier one.

Run `python -m benchmarks.variation_credit`; it prints a table.  Plans are scored by the published surrogate tables, and
the earlier search is one on another table.  Its counts, of offspring and of those that joined the front, weigh the
operators of the new search: the mutations, and crossing against not crossing.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

import stepfront.search.algorithm.nsga2 as nsga2
import stepfront.search.algorithm.variation as variation
from benchmarks import methods
from benchmarks.arguments import positive
from benchmarks.surrogate_table import TABLES, SurrogateTable, read_surrogate_table, true_hypervolume
from stepfront.arrays import Array
from stepfront.search.config import RunSettings, ScreenSettings, VariationSettings
from stepfront.search.genomes.encodings import Levels
from stepfront.search.pareto import hypervolume_history

DEFAULTS = RunSettings()
CROSSED, NOT_CROSSED = "crossed", "not crossed"
SLOTS = 120
"""Copies of mutations that are drawn from, so that shares are rounded to less than 1%."""

PRIOR = 8
"""Trials at the mean rate that each operator's counts are shrunk by."""

SHARE = 0.99


@dataclass
class Credit:
    """Counts of evaluated offspring and of those that added hypervolume, by operator; one may have several."""

    offspring: Counter[str] = field(default_factory=Counter)
    improved: Counter[str] = field(default_factory=Counter)
    evaluations: int = 0
    made_by_variation: int = 0

    def rates(self, names: tuple[str, ...], power: float) -> dict[str, float]:
        """Return the share of each of the operators: its shrunk rate of improvement, to a `power`, normalised."""
        total = sum(self.offspring[name] for name in names)
        mean = (sum(self.improved[name] for name in names) + 1) / (total + 2)
        rates = {n: ((self.improved[n] + PRIOR * mean) / (self.offspring[n] + PRIOR)) ** power for n in names}
        return {name: rate / sum(rates.values()) for name, rate in rates.items()}


@dataclass(frozen=True)
class Way:
    """How a search chooses operators: by the rates of another table's counts to a `power`; 0 ignores the counts."""

    name: str
    power: float


WAYS = (
    Way("operators as they are", 0.0),
    Way("weighed by another table's counts", 1.0),
    Way("the same, squared", 2.0),
)


@contextmanager
def traced(shares: Mapping[str, float], made: dict[bytes, tuple[str, ...]]) -> Iterator[None]:
    """Draw mutations by their `shares` within the block, and note in `made` which operators made each child."""
    used: list[str] = []
    mutations_of, make_child = variation.mutations_of, nsga2.make_child

    def noted(mutation: variation.Mutation) -> variation.Mutation:
        def mutate(rng: np.random.Generator, levels: Levels, encoding: variation.Encoding) -> Levels:
            used.append(mutation.__name__)
            return mutation(rng, levels, encoding)

        return mutate

    def weighed(encoding: variation.Encoding) -> tuple[variation.Mutation, ...]:
        mutations = mutations_of(encoding)
        even = 1 / len(mutations)
        return tuple(noted(m) for m in mutations for _ in range(round(SLOTS * shares.get(m.__name__, even))))

    def make(*given: object) -> variation.Child:
        used.clear()
        child = make_child(*given)  # type: ignore[arg-type]
        made[np.asarray(child.levels).tobytes()] = (*used, CROSSED if child.crossed else NOT_CROSSED)
        return child

    variation.mutations_of, nsga2.make_child = weighed, make
    try:
        yield
    finally:
        variation.mutations_of, nsga2.make_child = mutations_of, make_child


def search(
    table: SurrogateTable,
    seed: int,
    budget: int,
    screen: ScreenSettings,
    credit: Credit | None = None,
    power: float = 1.0,
) -> tuple[Array, Credit]:
    """Return the scores [budget, 2] of a search whose operators are weighed by `credit`, and its own counts."""
    names = tuple(mutation.__name__ for mutation in variation.mutations_of(table.encoding))
    shares = credit.rates(names, power) if credit else {}
    crossover = credit.rates((CROSSED, NOT_CROSSED), power)[CROSSED] if credit else DEFAULTS.variation.crossover
    made: dict[bytes, tuple[str, ...]] = {}
    asked: list[tuple[str, ...]] = []

    def score(levels: Levels) -> tuple[float, float]:
        asked.append(made.get(np.asarray(levels).tobytes(), ()))
        return table(levels)

    settings = VariationSettings.model_validate(DEFAULTS.variation.model_dump() | {"crossover": crossover})
    initial = {"random": 20} if screen.proxy == "none" else DEFAULTS.initial_plans
    with traced(shares, made):
        scores = methods.ours(table.plan_source(seed), score, budget, seed, initial, settings, screen)
    asked = asked[len(asked) - len(scores) :]  # the first call asks for the cost of full width
    volumes = hypervolume_history(scores, table.reference_point())
    found = Credit(evaluations=len(scores))
    for operators, gain in zip(asked, np.diff(volumes, prepend=0.0), strict=True):
        found.made_by_variation += bool(operators)
        found.offspring.update(set(operators))
        found.improved.update(set(operators) if gain > 0 else ())
    return scores, found


def measure(
    tables: Mapping[str, SurrogateTable], seeds: int, budget: int, screen: ScreenSettings
) -> tuple[pd.DataFrame, Credit]:
    """Return a row per way of the evaluations to the share of the true hypervolume, and the counts of all searches."""
    needed: dict[str, list[float]] = {way.name: [] for way in WAYS}
    every = Credit()
    for name, table in tables.items():
        goal, reference = SHARE * true_hypervolume(table), table.reference_point()
        others = [other for other in tables if other != name]
        for seed in range(seeds):
            _, earlier = search(tables[others[seed % len(others)]], 1000 + seed, budget, screen)
            for way in WAYS:
                scores, found = search(table, seed, budget, screen, earlier if way.power else None, way.power)
                volumes = hypervolume_history(scores, reference)
                needed[way.name].append(np.argmax(volumes >= goal) + 1 if volumes[-1] >= goal else np.inf)
                if not way.power:
                    every.offspring += found.offspring
                    every.improved += found.improved
                    every.evaluations += found.evaluations
                    every.made_by_variation += found.made_by_variation
    first = np.array(needed[WAYS[0].name])
    rows = [
        {
            "way": name,
            "searches": len(counts),
            **{f"{q} %": np.percentile(counts, q, method="higher") for q in (25, 50, 75)},
            "ratio, median": np.round(_middle(_ratios(np.array(counts), first)), 2),
            "fewer : more": f"{(np.array(counts) < first).sum()} : {(np.array(counts) > first).sum()}",
        }
        for name, counts in needed.items()
    ]
    return pd.DataFrame(rows), every


def _ratios(counts: Array, first: Array) -> Array:
    return np.where(np.isinf(counts) & np.isinf(first), 1.0, counts / np.where(np.isinf(first), 1e-9, first))


def _middle(values: Array) -> float:
    return float(np.percentile(values, 50, method="higher"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=positive, default=10, help="seeds per table without screening")
    parser.add_argument("--screened", type=int, default=10, help="seeds per table with the default screening")
    given = parser.parse_args()
    tables = {path.stem: read_surrogate_table(path) for path in sorted(Path(TABLES).glob("*.json"))}
    for title, seeds, budget, screen in (
        ("random first generation, no screening", given.seeds, 600, methods.NO_SCREEN),
        ("defaults", given.screened, 80, DEFAULTS.screen),
    ):
        if not seeds:
            continue
        begin = time.process_time()
        rows, credit = measure(tables, seeds, budget, screen)
        print(f"{title}: evaluations to {SHARE:.0%} of the true hypervolume, {budget} at most")
        print(rows.to_string(index=False))
        print(
            f"{credit.made_by_variation} of {credit.evaluations} evaluations were made by variation; "
            + ", ".join(f"{n} {credit.improved[n]}/{credit.offspring[n]}" for n in sorted(credit.offspring))
        )
        print(f"{time.process_time() - begin:.0f} s of CPU\n", flush=True)


if __name__ == "__main__":
    main()
