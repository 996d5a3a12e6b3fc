"""Compare the search with its strongest peers on the published tables.

Run it with `make bench-peers`; it writes docs/bench-peers.md.  It needs neither a supernet nor images: plans are
scored by benchmarks/plan_table.py and benchmarks/surrogate_table.py.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import outside_peers
from benchmarks.arguments import positive
from benchmarks.markdown import markdown
from benchmarks.peer_list import DEFAULTS, PEERS, Peer
from benchmarks.plan_table import COST_DIGITS, ENUMERATED, EnumeratedTable, PlanTable, read_enumerated_table
from benchmarks.surrogate_table import TABLES, SurrogateTable, read_surrogate_table
from stepfront.arrays import Array
from stepfront.search.pareto import hypervolume, hypervolume_history
from stepfront.search.records.versions import versions

SHARES = (0.95, 0.99, 0.999)
"""Shares of the true hypervolume, to each of which the evaluations are counted."""

EARLIER_SCREEN = "ours, screening before 0.2"
"""The method that our other screenings are compared with, seed by seed."""

SEEDS = 10
"""Most seeds of a method, unless told otherwise."""

PAIRED_AT = 100
"""Evaluations after which they are compared."""

FULL_EVALUATIONS = 20
"""Evaluations of the full width whose network FLOPs are one of the budgets."""


@dataclass(frozen=True)
class Truth:
    """The table, its front [points, 2], and what is measured against it."""

    table: PlanTable
    front: Array
    reference: list[float]
    volume: float

    @classmethod
    def of(cls, table: PlanTable) -> Truth:
        """Return the truth of a table."""
        front, reference = table.front(), table.reference_point()
        return cls(table, front, reference, hypervolume(front, reference, only_front=True))

    def shares(self, scores: Array) -> Array:
        """Return the hypervolume after each evaluation as a share of the true one, [N]."""
        return hypervolume_history(scores, self.reference) / self.volume

    def excess(self, scores: Array) -> float:
        """Return how far the best FID found at each cost of the true front is above the true one: mean of the ratios.

        Where no plan found is as cheap, the reference point's FID counts.
        """
        worst, limits = self.reference[0], self.front[:, 1] * (1 + 1e-9)
        best = np.array([scores[scores[:, 1] <= limit, 0].min(initial=worst) for limit in limits])
        return float((best / self.front[:, 0] - 1).mean())


@dataclass(frozen=True)
class Result:
    """Scores [N, 2] of one peer and seed, and CPU seconds per evaluation, the scoring included (microseconds).

    `made` is when it was kept, in seconds since 1970.
    """

    scores: Array
    seconds: float
    made: float = 0.0


def _kept_path(peer: Peer, seed: int, work: Path) -> Path:
    words = "".join(letter if letter.isalnum() else "-" for letter in peer.name)
    return work / f"{words}-{peer.budget}-{seed}.npz"


def run_peer(peer: Peer, table: PlanTable, seed: int, work: Path) -> Result:
    """Run one seed of a peer; results are kept, so that an interrupted benchmark continues."""
    path = _kept_path(peer, seed, work)
    if not path.exists():
        begin = time.process_time()
        scores = peer.run(table.plan_source(seed), table, peer.budget, seed)
        np.savez(path, scores=scores, seconds=(time.process_time() - begin) / len(scores))
        print(f"{peer.name}, seed {seed}: {time.process_time() - begin:.0f} s of CPU", flush=True)
    with np.load(path) as stored:
        # Results that were kept before costs were rounded differ from today's by rounding errors alone.
        fids, gflops = stored["scores"].T
        scores = np.column_stack([fids, gflops.round(COST_DIGITS)])
        return Result(scores, float(stored["seconds"]), path.stat().st_mtime)


def row(peer: Peer, results: list[Result], truth: Truth, images: int) -> dict[str, object]:
    """Return the row of a peer: evaluations to each share, medians over seeds."""
    curves = [truth.shares(result.scores) for result in results]
    cells: dict[str, object] = {"method": peer.name, "seeds": len(results)}
    for share in SHARES:
        cells[f"to {100 * share:g} %"] = _reached([_first(curve, share) for curve in curves], curves)
    spent = [np.cumsum(result.scores[:, 1]) * images / 1000 for result in results]
    cells["network TFLOPs to 99 %"] = _spent_to([_first(curve, 0.99) for curve in curves], spent)
    found = [result.scores for result in results]
    for count in (30, 60, 100):
        within = [scores[:count] for scores in found]
        cells[f"FID above the front at {count}"] = _excess(truth, within) if count <= peer.budget else "-"
    limit = FULL_EVALUATIONS * float(truth.table.unit_gflops[:, -1].sum()) * images / 1000
    within = [scores[tflops <= limit] for scores, tflops in zip(found, spent, strict=True)]
    reached = all(tflops[-1] >= limit for tflops in spent)
    cells[f"... at {limit:.2g} network TFLOPs"] = _excess(truth, within) if reached else "-"
    spent_ms = 1000 * float(np.median([result.seconds for result in results]))
    cells["ms per proposal"] = f"{spent_ms:.0f}" if spent_ms >= 10 else f"{spent_ms:.1f}"
    return cells


def _excess(truth: Truth, found: list[Array]) -> str:
    return f"{100 * np.median([truth.excess(scores) for scores in found]):.1f} %"


def _spent_to(counts: list[float], spent: list[Array]) -> str:
    """Return the median TFLOPs of so many evaluations; `> n` where the median did not get there for n TFLOPs."""
    reached = [
        float(tflops[int(count) - 1]) if np.isfinite(count) else np.inf
        for count, tflops in zip(counts, spent, strict=True)
    ]
    middle = float(np.percentile(reached, 50, method="higher"))
    most = float(np.median([tflops[-1] for tflops in spent]))
    return f"{middle:.2f}" if np.isfinite(middle) else f"> {most:.2f}"


def _first(curve: Array, share: float) -> float:
    return float(np.argmax(curve >= share) + 1) if (curve >= share).any() else np.inf


def _reached(counts: list[float], curves: list[Array]) -> str:
    """Return the median and, of several seeds, the range; `> n` where the median did not get there in n evaluations."""
    longest = max(len(curve) for curve in curves)
    least, middle, most = np.percentile(counts, (0, 50, 100), method="higher")
    words = [f"{count:.0f}" if np.isfinite(count) else f"> {longest}" for count in (least, middle, most)]
    return words[1] if len(counts) == 1 or words[1].startswith(">") else f"{words[1]} ({words[0]}-{words[2]})"


def mean_lines(found: Sequence[tuple[Truth, Mapping[str, list[Result]]]]) -> list[str]:
    """Return a line per method: means over all tables and seeds; `inf` where one search did not come to 99 %."""
    lines = []
    for name in dict.fromkeys(name for _, results in found for name in results):
        runs = [(truth, result) for truth, results in found for result in results.get(name, [])]
        reached = [_first(truth.shares(result.scores), 0.99) for truth, result in runs]
        excess = [truth.excess(result.scores[:40]) for truth, result in runs]
        lines.append(
            f"{name}: {np.mean(reached):.1f} evaluations to 99 %, FID {100 * np.mean(excess):.1f} % above the front at "
            f"40 (means over {len(runs)} searches on {len(found)} tables)"
        )
    return lines


def paired(results: Mapping[str, list[Result]], truth: Truth, at: int) -> pd.DataFrame:
    """Return how far our screenings are nearer the true front than the one before 0.2, seed by seed.

    The nearness is the FID above the front after `at` evaluations; methods without two seeds in common have no row.
    """
    before = [truth.excess(result.scores[:at]) for result in results.get(EARLIER_SCREEN, [])]
    rows = []
    for name in (name for name in results if name.startswith("ours") and name != EARLIER_SCREEN):
        found = [truth.excess(result.scores[:at]) for result in results[name]]
        gains = np.array([one - other for one, other in zip(before, found, strict=False)])
        if len(gains) > 1:
            nearer = f"{(gains > 0).sum()} of {len(gains)}"
            spread = {"mean gain": f"{100 * gains.mean():.1f} %", "deviation": f"{100 * gains.std(ddof=1):.1f} %"}
            rows.append({"method": name, "seeds nearer": nearer, **spread})
    return pd.DataFrame(rows)


def paired_lines(results: Mapping[str, list[Result]], truth: Truth) -> str:
    """Return the comparison of our screenings, seed by seed, as Markdown; empty where there is none."""
    rows = paired(results, truth, PAIRED_AT)
    if not len(rows):
        return ""
    return f"""
FID above the front after {PAIRED_AT} evaluations, seed by seed, against `{EARLIER_SCREEN}`. `deviation`: the standard
deviation of the gain over seeds.

{markdown(rows)}
"""


def error_lines(table: SurrogateTable) -> str:
    """Return the held-out error of a table as Markdown."""
    intro = "A fifth of the plans was held out. `front-like` are all that are not of independent random widths:"
    errors = pd.DataFrame(table.about["held-out error"]).T
    rows = [
        {
            "held-out plans": name,
            "number": int(error["plans"]),
            "R^2 of log FID": f"{error['r2']:.3f}",
            "Kendall's tau": f"{error['tau']:.3f}",
            "median relative error of FID": f"{100 * error['median_relative_error']:.1f} %",
        }
        for name, error in errors.iterrows()
    ]
    return f"{intro}\n\n{markdown(pd.DataFrame(rows))}\n"


def section(name: str, truth: Truth, results: Mapping[str, list[Result]]) -> str:
    """Return the section of one table as Markdown."""
    table, about = truth.table, truth.table.about
    rows = [row(peer, results[peer.name], truth, int(about["images"])) for peer in PEERS if peer.name in results]
    absent = [peer.name for peer in PEERS if peer.installed and peer.name not in results]
    unmeasured = f"\nNot measured here: {'; '.join(absent)}.\n" if absent else ""
    return f"""## `{name}`

{table.units} genes of {len(table.widths)} widths, {table.count:,} plans; {front_words(truth)}.

{markdown(pd.DataFrame(rows))}
{unmeasured}{paired_lines(results, truth)}
{origin_lines(table)}
Supernet: {about["supernet"]}. Sampler: {about["sampler"]}. Score: {about["score"]}.
{error_lines(table) if isinstance(table, SurrogateTable) else ""}"""


def front_words(truth: Truth) -> str:
    """Say what the front is, with its number of points."""
    if isinstance(truth.table, SurrogateTable) and truth.table.front_plans is not None:
        return (
            f"the best known front has {len(truth.front)} points, which no change of one or two genes improves."
            "\nShares and FIDs are relative to it, as there are too many plans to score them all"
        )
    return f"the true front has {len(truth.front)} points"


def origin_lines(table: PlanTable) -> str:
    """Say what the table was made of."""
    about = table.about
    if isinstance(table, EnumeratedTable):
        return f"Every plan was measured (`{about['command']}`)."
    return (
        f"The table is fitted to {about['fitted to']} evaluated plans, about half of them of independent random widths,"
        f" the\nothers in runs or like those of a front (`{about['command']}`)."
    )


def page(sections: list[str], options: str, made: str) -> str:
    """Return the page as Markdown; `options` are those that make its rows, and `made` is the day of the newest one."""
    outside = {name: outside_peers.installed_version(package) for package, name in outside_peers.PACKAGES.items()}
    missing = [name for name, version in outside.items() if version is None]
    absent = f"Not installed, so not measured: {', '.join(missing)} (`pip install '.[peers]'`)." if missing else ""
    used = versions() | {name: version for name, version in outside.items() if version is not None}
    return f"""# The search and its peers

Made by `make bench-peers` (`python -m benchmarks.peers{options}`) on {made}.

Versions: {", ".join(f"{k} {v}" for k, v in used.items())}.

All methods search on published tables. Those of six genes (`benchmarks/enumerated_tables/`) have the measured FID of
every plan. Those of 10 and 20 genes (`benchmarks/surrogate_tables/`) are additive and pairwise models of log FID,
fitted to evaluated plans by ridge regression.

- `to 99 %`: evaluations to that share of the true hypervolume (reference: 1.1 x the worst uniform FID, 1.05 x full
  cost): median over seeds, with the least and the greatest. `> n`: not reached in n evaluations.
- `FID above the front at n`: the best FID found at each cost of the true front, above the true one, mean over costs;
  after n evaluations.
- `network TFLOPs`: what the networks of the evaluations compute, which is what a search costs. `> n`: not reached
  with n. In the column `... at n network TFLOPs` all methods have spent as much as {FULL_EVALUATIONS} evaluations
  of the full width. `-`: the method was not run so far.
- `ms per proposal`: CPU time of one thread, models and storage included. Evaluations cost nothing here.
- `n plans under way`: n plans are always without a result, as with n workers of equal speed. In all other rows a
  result is known before the next plan is proposed.
- `ours, level coding` to `ours, no neighbours` change one setting of `screen` each; without neighbours there is no
  climb either. `screening before 0.2` has the earlier defaults: `coding: level`, `acquisition: optimistic`,
  `neighbours: 0`.
- Optuna's samplers run as shipped, on integers (NSGA-II on categories, as documented), and are charged for plans that
  they repeat. GPSampler maximises the expected hypervolume improvement. For its time per proposal it runs for
  100 evaluations.
- The column `seeds` says how many seeds a row has; a median of one seed has no range.
- BoTorch maximises qLogNEHVI over the integers by local search, with a Gaussian process of log FID and the known costs.
  For its time per proposal it runs for 60 evaluations. Ax is left out: it would propose by the same function.
- SMAC3 is its hyperparameter facade (random forest, ParEGO) on integers, for 60 evaluations.
- Syne Tune is its multi-objective regularized evolution with a population of 20; release 0.16 has no NSGA-II. It is
  charged for plans that it repeats.
- Greedy narrowing and the gap optima have no randomness. They end when they have no more plans.

A surrogate table has no noise and no interaction of three steps. That favours methods that assume additivity, above all
the additive model. The tables of six genes are measured, not modelled.

{absent}

{chr(10).join(sections)}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="append", help="name of a published table, also several times; default: all")
    parser.add_argument("--work", type=Path, default=Path("runs/bench-peers"), help="folder for scores")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--seeds", type=positive, default=SEEDS, help="most seeds of a method")
    parser.add_argument(
        "--only",
        default="",
        help="run the methods whose names contain this, print means over tables and seeds, and write no page",
    )
    parser.add_argument("--kept", action="store_true", help="run nothing, and write the page from results in --work")
    given = parser.parse_args()
    newest = 0.0
    sections, found = [], list[tuple[Truth, dict[str, list[Result]]]]()
    for path in table_paths(given.table):
        truth = Truth.of(read_table(path))
        results = run_peers(truth.table, path.read_bytes(), given.seeds, given.only, given.work, given.kept)
        if not results:
            raise SystemExit(f"no results on {path.stem} in {given.work}")
        newest = max(newest, *(result.made for runs in results.values() for result in runs))
        if given.only:
            found.append((truth, results))
        else:
            sections.append(section(path.stem, truth, results))
    if given.only:
        print("\n".join(mean_lines(found)))
    else:
        # Without --work, --docs and --kept, which change no row.
        options = "".join(f" --table {name}" for name in given.table or ())
        options += f" --seeds {given.seeds}" * (given.seeds != SEEDS)
        made = time.strftime("%Y-%m-%d", time.localtime(newest))
        given.docs.mkdir(parents=True, exist_ok=True)
        (given.docs / "bench-peers.md").write_text(page(sections, options, made), encoding="utf-8")


def table_paths(names: Sequence[str] | None) -> list[Path]:
    """Return the files of the published tables of these names, or of all, those of measured plans first.

    Raises SystemExit where there is no table of a name.
    """
    every = {path.stem: path for folder in (ENUMERATED, TABLES) for path in sorted(folder.glob("*.json"))}
    if unknown := [name for name in names or () if name not in every]:
        raise SystemExit(f"no table named {', '.join(unknown)} (published: {', '.join(every)})")
    return [path for name, path in every.items() if names is None or name in names]


def read_table(path: Path) -> PlanTable:
    """Return the published table of a file."""
    return read_enumerated_table(path) if path.parent == ENUMERATED else read_surrogate_table(path)


def run_peers(
    table: PlanTable, content: bytes, seeds: int, only: str, work: Path, kept_alone: bool = False
) -> dict[str, list[Result]]:
    """Run the peers whose names contain `only` on a table; results of another table or other defaults are not these.

    With `kept_alone` nothing runs, and peers and seeds without a result are left out.
    """
    defaults = DEFAULTS.model_dump_json(include={"initial_plans", "variation", "screen"}).encode()
    kept = work / hashlib.sha256(content + defaults).hexdigest()[:8]
    kept.mkdir(parents=True, exist_ok=True)
    wanted = {
        peer: [s for s in range(min(seeds, peer.seeds)) if not kept_alone or _kept_path(peer, s, kept).exists()]
        for peer in PEERS
        if only in peer.name and peer.installed
    }
    return {peer.name: [run_peer(peer, table, seed, kept) for seed in each] for peer, each in wanted.items() if each}


if __name__ == "__main__":
    main()
