"""Measure what earlier searches are worth on other data, over ordered pairs of published surrogate tables.

Run it with `make bench-transfer`; it writes docs/bench-transfer.md.  It needs neither a supernet nor images: plans are
scored by benchmarks/surrogate_table.py.  The earlier search on one table has the screening of release 0.1.
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
from benchmarks.arguments import positive
from benchmarks.markdown import markdown
from benchmarks.surrogate_table import TABLES, SurrogateTable, read_surrogate_table
from stepfront.arrays import Array
from stepfront.search.algorithm.surrogate import EarlierModel, PlanFeatures
from stepfront.search.algorithm.transfer import fit_earlier_model
from stepfront.search.algorithm.trials import Proposal
from stepfront.search.config import RunSettings, ScreenSettings
from stepfront.search.earlier.kept_tables import FRONT_PLANS
from stepfront.search.earlier.mapped_plans import mapped_gap, mapped_levels
from stepfront.search.genomes.encodings import Levels
from stepfront.search.pareto import domination_rank, front_indices, hypervolume_history
from stepfront.search.records.versions import versions
from stepfront.trainers.validation import settings_json

DEFAULTS = RunSettings()
SCREEN = DEFAULTS.screen
"""The screening of all searches that are compared."""

FIRST_SCREEN = ScreenSettings(coding="level", acquisition="optimistic", neighbours=0)
"""The screening of release 0.1, that of the earlier searches and of one row."""

EARLIER_TRIALS = 120
"""Evaluations of an earlier search, the budget of the presets."""

GENES = 10
"""Genes of the tables that are searched on."""

COLD, COLD_FIRST = "cold", "cold, with the screening of 0.1"
"""Names of the rows without earlier searches."""

NOISE = "cold, of another seed (noise)"
"""Name of the row of the cold searches, each beside those of the other seeds."""

REVERSED, UNRELATED = "reversed", ("unrelated-1", "unrelated-2", "unrelated-3")
"""Names of the controls, made of the table of the data itself: its steps in reverse order, which mislead, and all its
coefficients exchanged at random, so that nothing is left of it but their sizes."""

CONTROLS = (REVERSED, *UNRELATED)


@dataclass(frozen=True)
class Comparison:
    """A way to search on the table `data`: from the tables in `earlier`, none of them for a cold start."""

    data: str
    earlier: tuple[str, ...] = ()
    screen: ScreenSettings = SCREEN
    exact: bool = False
    """Whether the data's own table takes the place of the earlier searches' models: no model can be worth more."""


@dataclass(frozen=True)
class Run:
    """The hypervolume and the network TFLOPs spent after each evaluation of a search, [budget] each."""

    volumes: Array
    tflops: Array

    def needed(self, goal: float) -> tuple[float, float]:
        """Return the evaluations and the TFLOPs to a hypervolume; infinite where it was not reached."""
        reached = self.volumes >= goal * (1 - 1e-12)
        if not reached.any():
            return np.inf, np.inf
        return float(np.argmax(reached)) + 1, float(self.tflops[np.argmax(reached)])


@dataclass(frozen=True)
class Tables:
    """The published tables by name, and the folder in which results are kept."""

    by_name: Mapping[str, SurrogateTable]
    work: Path
    budget: int

    def table(self, name: str, data: str, seed: int) -> SurrogateTable:
        """Return a table of that name; a control is made of the data's own, an unrelated one for each seed."""
        if name in UNRELATED:
            return unrelated_table(self.by_name[data], [seed, UNRELATED.index(name)])
        return reversed_table(self.by_name[data]) if name == REVERSED else self.by_name[name]

    def run(self, comparison: Comparison, seed: int) -> Run:
        """Return what a search found after each evaluation; results are kept and read again."""
        table = self.by_name[comparison.data]
        words = "-".join([comparison.data, "from", *(comparison.earlier or ["none"]), comparison.screen.coding])
        words += "-exact" * comparison.exact
        how = settings_json(comparison.screen)
        digest = self._digest([comparison.data, *(name for name in comparison.earlier if name not in CONTROLS)])
        digest = hashlib.sha256(f"{how} {EARLIER_TRIALS} {digest}".encode()).hexdigest()[:12]
        path = self.work / f"{words}-{self.budget}-{seed}-{digest}.npy"
        if not path.exists():
            begin = time.process_time()
            np.save(path, self._scores(comparison, table, seed))
            print(f"{path.stem}: {time.process_time() - begin:.0f} s of CPU", flush=True)
        scores = np.load(path)
        spent = np.cumsum(scores[:, 1]) * int(table.about["images"]) / 1000
        return Run(hypervolume_history(scores, table.reference_point()), spent)

    def _scores(self, comparison: Comparison, table: SurrogateTable, seed: int) -> Array:
        found = [self._carried(name, comparison.data, seed) for name in comparison.earlier]
        if comparison.exact:
            found = [(lambda plans: table.log_fid(np.array(plans)), front) for _, front in found]
        return methods.ours(
            table.plan_source(seed), table, self.budget, seed, DEFAULTS.initial_plans, DEFAULTS.variation,
            comparison.screen, earlier=[model for model, _ in found], front=[p for _, front in found for p in front],
        )  # fmt: skip

    def _carried(self, name: str, data: str, seed: int) -> tuple[EarlierModel, list[Proposal]]:
        """Return what a search on the table `name` carries over to `data`; its trials are kept."""
        table = self.table(name, data, seed)
        words = f"{data}-{name}" if name in CONTROLS else name
        path = self.work / f"earlier-{words}-{seed}-{self._digest([data if name in CONTROLS else name])}.npz"
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
    count = table.units
    pairs = np.zeros_like(table.pairs)
    for i, j in zip(*np.triu_indices(count, 1), strict=True):
        pairs[count - 1 - j, count - 1 - i] = table.pairs[i, j].T
    return replace(table, main=table.main[::-1].copy(), pairs=pairs)


def unrelated_table(table: SurrogateTable, seed: Sequence[int]) -> SurrogateTable:
    """Return the table with its coefficients exchanged at random; gap and costs stay those of the data."""
    rng = np.random.default_rng(seed)
    pairs, upper = np.zeros_like(table.pairs), np.triu_indices(table.units, 1)
    pairs[upper] = rng.permutation(table.pairs[upper].ravel()).reshape(table.pairs[upper].shape)
    return replace(table, main=rng.permutation(table.main.ravel()).reshape(table.main.shape), pairs=pairs)


def earlier_trials(table: SurrogateTable, seed: int) -> tuple[list[Levels], Array]:
    """Return the plans and the scores [N, 2] of a search on a table, with the screening of release 0.1."""
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


def comparisons(names: Sequence[str], data: str, longer: Sequence[str] = ()) -> Iterator[tuple[str, str, Comparison]]:
    """Yield what is compared on the table `data`, with its name in the summary and that of its row.

    `names` are the tables that are searched on, and `longer` those of more steps, which are only started from.
    """
    others = [name for name in names if name != data]
    yield COLD, COLD, Comparison(data)
    yield COLD_FIRST, COLD_FIRST, Comparison(data, screen=FIRST_SCREEN)
    for name in others:
        yield "from one other table (all ordered pairs)", f"from {name}", Comparison(data, (name,))
    if len(others) > 1:
        yield "from all other tables", f"from {' and '.join(others)}", Comparison(data, tuple(others))
    for name in longer:
        yield "from a table of more steps", f"from {name}", Comparison(data, (name,))
    for name in others[:1]:
        yield (
            "bound: the data's own table for a model",
            f"bound: first plans of {name}",
            Comparison(data, (name,), exact=True),
        )
    for control, earlier in (
        ("the reversed table", (REVERSED,)),
        ("an unrelated table", UNRELATED[:1]),
        ("three unrelated tables", UNRELATED),
    ):
        yield f"from {control} (control)", f"from {control} (control)", Comparison(data, earlier)
    if others:
        mixed = Comparison(data, (others[0], *UNRELATED[:2]))
        yield "from one other table and two unrelated ones", f"from {others[0]} and two unrelated tables", mixed


def row(name: str, runs: Sequence[Run], cold: Sequence[Run], trials: int) -> tuple[dict[str, str], Array]:
    """Return the row of one way to search, and its evaluations and TFLOPs relative to the cold ones [2, seeds].

    They are those to the cold search's hypervolume after so many `trials`, divided by what that one needed itself.
    """
    goals = [one.volumes[trials - 1] for one in cold]
    own = np.array([run.needed(goal) for run, goal in zip(runs, goals, strict=True)]).T
    ratios = own / np.array([one.needed(goal) for one, goal in zip(cold, goals, strict=True)]).T
    cells = {"search": name}
    for at in (20, 30, trials):
        volumes = [run.volumes[at - 1] / goal for run, goal in zip(runs, goals, strict=True)]
        cells[f"hypervolume at {at}"] = f"{np.median(volumes):.4f}"
    cells["evaluations"] = f"{_count(_middle(own[0]))} ({_count(own[0].min())}-{_count(own[0].max())})"
    cells["network TFLOPs"] = _ratio(_middle(own[1]))
    cells["ratio, median"] = _ratio(_middle(ratios[0]))
    cells["ratio, worst"] = _ratio(ratios[0].max())
    return cells, ratios


def _middle(values: Array) -> float:
    return float(np.percentile(values, 50, method="higher"))


def _count(value: float) -> str:
    return f"{value:.0f}" if np.isfinite(value) else "never"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "never"


def measure(tables: Tables, seeds: int, trials: int, only: str = "") -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Return the rows of each table whose name contains `only`, and the ratios over all their ordered pairs."""
    sections: dict[str, pd.DataFrame] = {}
    ratios: dict[str, list[Array]] = {}
    names = sorted(name for name, table in tables.by_name.items() if table.units == GENES)
    longer = sorted(set(tables.by_name) - set(names))
    for data in (name for name in names if only in name):
        cold = [tables.run(Comparison(data), seed) for seed in range(seeds)]
        compared = [
            (kind, name, [tables.run(comparison, seed) for seed in range(seeds)], cold)
            for kind, name, comparison in comparisons(names, data, longer)
        ]
        if seeds > 1:
            others = [one for shift in range(1, seeds) for one in (*cold[shift:], *cold[:shift])]
            compared.insert(1, (NOISE, NOISE, others, cold * (seeds - 1)))
        rows = []
        for kind, name, runs, references in compared:
            cells, found = row(name, runs, references, trials)
            rows.append(cells)
            ratios.setdefault(kind, []).append(found)
        sections[data] = pd.DataFrame(rows)
    return sections, pd.DataFrame([_summary(kind, *np.hstack(found)) for kind, found in ratios.items()])


def _summary(kind: str, ratios: Array, tflops: Array) -> dict[str, str | int]:
    """Return the row of one kind of searches, of its ratios of evaluations and of TFLOPs."""
    return {
        "search": kind,
        "number": len(ratios),
        "ratio, median": _ratio(_middle(ratios)),
        "ratio, 90 % below": _ratio(float(np.percentile(ratios, 90, method="higher"))),
        "ratio, worst": _ratio(ratios.max()),
        "above 1.1": int((ratios > 1.1).sum()),
        "ratio of TFLOPs, median": _ratio(_middle(tflops)),
    }


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
screening.

Each ratio compares a search with the cold one of the same seed: the evaluations to that search's hypervolume after
{given.trials} evaluations, divided by what it needed itself. `never`: not reached in {tables.budget} evaluations.
`{NOISE}` compares each cold search with those of the other seeds, so it is what chance alone does.
`network TFLOPs` is what the networks of those evaluations compute.

Goal: half in the median, and never above 1.1.

{markdown(summary)}

- Controls are made of the data's own table. `reversed` has its steps in reverse order: a search that misleads.
  `unrelated` has all its coefficients exchanged at random, others for each seed. Their first generation is chosen by
  expected gain as well. So what is below a control's ratio is due to what the earlier search knows, and the rest to how
  plans are chosen.
- The `bound` is no search that anybody can run: the data's own table, exactly, takes the place of the earlier search's
  model. No model can be worth more.
- A table has neither noise nor interactions of three steps. All tables that are searched on have 10 genes, 10 steps and
  the same 4 widths. One earlier search, on `digits-20`, has 20 steps. Other widths are tested (`tests/search/earlier`),
  not measured.

{chr(10).join(parts)}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/bench-transfer"), help="folder for scores")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--seeds", type=positive, default=10)
    parser.add_argument("--trials", type=int, default=60, help="evaluations of the cold search")
    parser.add_argument("--only", default="", help="search on the tables whose names contain this, and write no page")
    given = parser.parse_args()
    paths = sorted(TABLES.glob("*.json"))
    settings = [DEFAULTS.model_dump_json(include={"initial_plans", "variation"}), repr(SCREEN), repr(FIRST_SCREEN)]
    work = given.work / hashlib.sha256("".join(settings).encode()).hexdigest()[:8]
    work.mkdir(parents=True, exist_ok=True)
    by_name = {path.stem: read_surrogate_table(path) for path in paths}
    tables = Tables(by_name, work, given.trials + given.trials // 3)
    if not any(given.only in name for name, table in by_name.items() if table.units == GENES):
        parser.error(f"no table of {GENES} genes has {given.only!r} in its name (published: {', '.join(by_name)})")
    sections, summary = measure(tables, given.seeds, given.trials, given.only)
    if given.only:
        return
    given.docs.mkdir(parents=True, exist_ok=True)
    (given.docs / "bench-transfer.md").write_text(page(sections, summary, tables, given), encoding="utf-8")
    print(summary.to_string())


if __name__ == "__main__":
    main()
