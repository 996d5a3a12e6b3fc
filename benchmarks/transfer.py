"""Measure what earlier searches are worth on other data, over ordered pairs of published surrogate tables.

Run it with `make bench-transfer`; it writes docs/bench-transfer.md.  It needs neither a supernet nor images: plans are
scored by benchmarks/surrogate_table.py.  The earlier search on one table is itself run with the defaults.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import methods
from benchmarks.markdown import markdown
from benchmarks.surrogate_table import TABLES, SurrogateTable, read_surrogate_table
from stepfront.arrays import Array
from stepfront.search.algorithm.encodings import Levels
from stepfront.search.algorithm.surrogate import EarlierModel, PlanFeatures
from stepfront.search.algorithm.transfer import fit_earlier_model
from stepfront.search.algorithm.trials import Proposal
from stepfront.search.config import RunSettings, ScreenSettings
from stepfront.search.earlier.kept_tables import FRONT_PLANS
from stepfront.search.earlier.mapped_plans import mapped_gap, mapped_levels
from stepfront.search.pareto import domination_rank, front_indices, hypervolume_history
from stepfront.search.records.versions import versions

DEFAULTS = RunSettings()
SCREEN = ScreenSettings(coding="thermometer", acquisition="expected", neighbours=1000)
"""The screening of all searches that are compared: the default, with more neighbours."""

FIRST_SCREEN = ScreenSettings(coding="level", acquisition="optimistic", neighbours=0)
"""The screening of release 0.1, that of the earlier searches and of one row."""

EARLIER_TRIALS = 120
"""Evaluations of an earlier search, the budget of the presets."""

COLD, COLD_FIRST = "cold", "cold, with the screening of 0.1"
"""Names of the rows without earlier searches."""

REVERSED = "reversed"
"""Name of the control: the table of the data itself with its steps in reverse order, which misleads."""


@dataclass(frozen=True)
class Comparison:
    """A way to search on the table `data`: from the tables in `earlier`, none of them for a cold start."""

    data: str
    earlier: tuple[str, ...] = ()
    screen: ScreenSettings = SCREEN


@dataclass(frozen=True)
class Tables:
    """The published tables by name, and the folder in which results are kept."""

    by_name: Mapping[str, SurrogateTable]
    work: Path
    budget: int

    def table(self, name: str, data: str) -> SurrogateTable:
        """Return a table of that name; the control is made of the data's own."""
        return reversed_table(self.by_name[data]) if name == REVERSED else self.by_name[name]

    def curve(self, comparison: Comparison, seed: int) -> Array:
        """Return the hypervolume after each evaluation, [budget]; results are kept and read again."""
        table = self.by_name[comparison.data]
        words = "-".join([comparison.data, "from", *(comparison.earlier or ["none"]), comparison.screen.coding])
        digest = self._digest([comparison.data, *(name for name in comparison.earlier if name != REVERSED)])
        path = self.work / f"{words}-{self.budget}-{seed}-{digest}.npy"
        if not path.exists():
            begin = time.process_time()
            np.save(path, self._scores(comparison, table, seed))
            print(f"{path.stem}: {time.process_time() - begin:.0f} s of CPU", flush=True)
        return hypervolume_history(np.load(path), table.reference_point())

    def _scores(self, comparison: Comparison, table: SurrogateTable, seed: int) -> Array:
        found = [self._carried(name, comparison.data, seed) for name in comparison.earlier]
        return methods.ours(
            table.plan_source(seed), table, self.budget, seed, DEFAULTS.initial_plans, DEFAULTS.variation,
            comparison.screen, earlier=[model for model, _ in found], front=[p for _, front in found for p in front],
        )  # fmt: skip

    def _carried(self, name: str, data: str, seed: int) -> tuple[EarlierModel, list[Proposal]]:
        """Return what a search on the table `name` carries over to `data`; its trials are kept."""
        table = self.table(name, data)
        words = f"{data}-{REVERSED}" if name == REVERSED else name
        path = self.work / f"earlier-{words}-{seed}-{self._digest([data if name == REVERSED else name])}.npz"
        if not path.exists():
            plans, scores = earlier_trials(table, 1000 + seed)
            np.savez(path, plans=np.array(plans), scores=scores)
        with np.load(path) as stored:
            return carried(table, self.by_name[data], list(stored["plans"]), stored["scores"])

    def _digest(self, names: Sequence[str]) -> str:
        content = b"".join((TABLES / f"{name}.json").read_bytes() for name in names)
        return hashlib.sha256(content).hexdigest()[:6]


def reversed_table(table: SurrogateTable) -> SurrogateTable:
    """Return the table with what the steps are worth in reverse order; gap and costs stay those of the data."""
    count = len(table.main)
    pairs = np.zeros_like(table.pairs)
    for i, j in zip(*np.triu_indices(count, 1), strict=True):
        pairs[count - 1 - j, count - 1 - i] = table.pairs[i, j].T
    return replace(table, main=table.main[::-1].copy(), pairs=pairs)


def earlier_trials(table: SurrogateTable, seed: int) -> tuple[list[Levels], Array]:
    """Return the plans and the scores [N, 2] of a search with the defaults on a table."""
    plans: dict[bytes, Levels] = {}

    def score(levels: Levels) -> tuple[float, float]:
        plans.setdefault(np.asarray(levels).tobytes(), np.array(levels))
        return table(levels)

    source, settings = table.plan_source(seed), DEFAULTS
    methods.ours(
        source, score, EARLIER_TRIALS, seed, settings.initial_plans, settings.variation, FIRST_SCREEN
    )  # fmt: skip
    found = list(plans.values())
    return found, table.scores(np.array(found))


def carried(
    old: SurrogateTable, new: SurrogateTable, plans: Sequence[Levels], scores: Array
) -> tuple[EarlierModel, list[Proposal]]:
    """Return the model of a search on the old table, and plans of its front, both for the space of the new one.

    `plans` [N] and `scores` [N, 2] are its trials.
    """

    def ours(steps: int) -> Array:
        assert steps == new.steps
        return new.half_log_snr

    def mapped(levels: Levels) -> Levels:
        return mapped_levels(old.encoding.step_widths(levels), new.encoding, old.half_log_snr, ours)

    gap = mapped_gap(old.gap, old.half_log_snr, old.widths, new.encoding, ours)
    theirs, here = (PlanFeatures(new.encoding, g / g.max(axis=1).sum(), coding="thermometer") for g in (gap, new.gap))
    model = fit_earlier_model(
        theirs, here, [mapped(levels) for levels in plans], scores[:, 0],
        lambda most: domination_rank(scores, enough=most),
    )  # fmt: skip
    front = front_indices(scores)
    chosen = np.unique(np.linspace(0, len(front) - 1, min(FRONT_PLANS, len(front))).round().astype(int))
    genomes = dict.fromkeys(new.encoding.pack(mapped(plans[i])) for i in front[chosen])
    return model, [Proposal(genome, "front:earlier") for genome in genomes]


def comparisons(names: Sequence[str], data: str) -> Iterator[tuple[str, Comparison]]:
    """Yield what is compared on the table `data`, with the name of its row."""
    others = [name for name in names if name != data]
    yield COLD, Comparison(data)
    yield COLD_FIRST, Comparison(data, screen=FIRST_SCREEN)
    for name in others:
        yield f"from {name}", Comparison(data, (name,))
    if len(others) > 1:
        yield f"from {' and '.join(others)}", Comparison(data, tuple(others))
    yield "from reversed (control)", Comparison(data, (REVERSED,))


def counts(curve: Array, cold: Array, trials: int) -> tuple[float, float]:
    """Return the evaluations that a curve and the cold one need to the cold one's last hypervolume of `trials`.

    The first is infinite where the curve does not reach it.
    """
    goal = cold[trials - 1]
    reached = curve >= goal * (1 - 1e-12)
    return float(np.argmax(reached)) + 1 if reached.any() else np.inf, float(np.argmax(cold >= goal)) + 1


def row(name: str, curves: Sequence[Array], cold: Sequence[Array], trials: int) -> tuple[dict[str, str], list[float]]:
    """Return the row of one way to search, and the ratio of its evaluations to the cold ones per seed."""
    pairs = [counts(curve, one, trials) for curve, one in zip(curves, cold, strict=True)]
    own, ratios = [pair[0] for pair in pairs], [a / b for a, b in pairs]
    cells = {"search": name}
    for at in (20, 30, trials):
        volumes = [curve[at - 1] / one[trials - 1] for curve, one in zip(curves, cold, strict=True)]
        cells[f"hypervolume at {at}"] = f"{np.median(volumes):.4f}"
    cells["evaluations"] = f"{_count(np.percentile(own, 50, method='higher'))} ({_count(min(own))}-{_count(max(own))})"
    cells["ratio, median"] = _ratio(float(np.percentile(ratios, 50, method="higher")))
    cells["ratio, worst"] = _ratio(max(ratios))
    return cells, ratios


def _count(value: float) -> str:
    return f"{value:.0f}" if np.isfinite(value) else "never"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "never"


def measure(tables: Tables, seeds: int, trials: int, only: str = "") -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Return the rows of each table whose name contains `only`, and the ratios over all their ordered pairs."""
    sections: dict[str, pd.DataFrame] = {}
    ratios: dict[str, list[float]] = {}
    names = sorted(tables.by_name)
    for data in (name for name in names if only in name):
        cold = [tables.curve(Comparison(data), seed) for seed in range(seeds)]
        rows = []
        for name, comparison in comparisons(names, data):
            cells, found = row(name, [tables.curve(comparison, seed) for seed in range(seeds)], cold, trials)
            rows.append(cells)
            ratios.setdefault(_kind(comparison), []).extend(found)
        sections[data] = pd.DataFrame(rows)
    summary = [
        {
            "searches": kind,
            "number": len(found),
            "ratio, median": _ratio(float(np.percentile(found, 50, method="higher"))),
            "ratio, 90 % below": _ratio(float(np.percentile(found, 90, method="higher"))),
            "ratio, worst": _ratio(max(found)),
            "above 1.1": sum(ratio > 1.1 for ratio in found),
        }
        for kind, found in ratios.items()
    ]
    return sections, pd.DataFrame(summary)


def _kind(comparison: Comparison) -> str:
    names = comparison.earlier
    if not names:
        return COLD if comparison.screen == SCREEN else COLD_FIRST
    if names == (REVERSED,):
        return "warm, from the control alone"
    return "warm, from one other table (all ordered pairs)" if len(names) == 1 else "warm, from all other tables"


def page(sections: Mapping[str, pd.DataFrame], summary: pd.DataFrame, tables: Tables, given: argparse.Namespace) -> str:
    """Return the page as Markdown."""
    parts = []
    for name, rows in sections.items():
        about = tables.by_name[name].about
        error = about["held-out error"]["all"]
        parts.append(
            f"## On `{name}`\n\n{about['supernet']}; {about['sampler']}; {about['score']}. The table is fitted to"
            f" {about['fitted to']} evaluated plans; on {error['plans']} held-out plans Kendall's tau is"
            f" {error['tau']:.3f} and R^2 of log FID {error['r2']:.3f}.\n\n{markdown(rows)}\n"
        )
    return f"""# Starting from earlier searches

Made by `make bench-transfer` (`--seeds {given.seeds} --trials {given.trials}`) on {time.strftime("%Y-%m-%d")};
{", ".join(f"{k} {v}" for k, v in versions().items())}.

A search on one surrogate table (`benchmarks/surrogate_tables/`) starts from a search on another, as
`--from` does. The earlier search has the initial plans of the defaults, the screening of release 0.1
and {EARLIER_TRIALS} evaluations. Plans and gap tables are mapped by log-SNR. All other searches have the default
screening, but for {SCREEN.neighbours} neighbours in place of {DEFAULTS.screen.neighbours}.

Each ratio compares a search with the cold one of the same seed: the evaluations to that search's hypervolume after
{given.trials} evaluations, divided by what it needed itself. `never`: not reached in {tables.budget} evaluations.

Goal: half in the median, and never above 1.1.

{markdown(summary)}

- The control is the data's own table with its steps in reverse order: a search that misleads. Its first generation is
  chosen by expected gain as well. So what is below the control's ratio is due to what the earlier search knows, and the
  rest to how plans are chosen.
- A table has neither noise nor interactions of three steps, and all tables here have 10 genes of the same 4 widths and
  the same 10 steps. Other numbers of steps and widths are tested (`tests/search/earlier`), not measured.

{chr(10).join(parts)}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/bench-transfer"), help="folder for scores")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=60, help="evaluations of the cold search")
    parser.add_argument("--only", default="", help="search on the tables whose names contain this, and write no page")
    given = parser.parse_args()
    paths = sorted(TABLES.glob("*.json"))
    settings = [DEFAULTS.model_dump_json(include={"initial_plans", "variation"}), repr(SCREEN), repr(FIRST_SCREEN)]
    work = given.work / hashlib.sha256("".join(settings).encode()).hexdigest()[:8]
    work.mkdir(parents=True, exist_ok=True)
    by_name = {path.stem: read_surrogate_table(path) for path in paths}
    tables = Tables(by_name, work, given.trials + given.trials // 3)
    sections, summary = measure(tables, given.seeds, given.trials, given.only)
    if given.only:
        return
    given.docs.mkdir(parents=True, exist_ok=True)
    (given.docs / "bench-transfer.md").write_text(page(sections, summary, tables, given), encoding="utf-8")
    print(summary.to_string())


if __name__ == "__main__":
    main()
