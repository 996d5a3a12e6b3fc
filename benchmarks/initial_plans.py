"""Measure what first generations are worth on the default space, any number of steps spread evenly.

Run it with `make bench-initial-plans`; it writes docs/bench-initial-plans.md.  It needs a supernet, by default that of
runs/digits.  docs/bench-variation.md compares kinds of plans on a space without the number of steps.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from benchmarks.arguments import positive
from benchmarks.markdown import markdown
from benchmarks.variants import TWENTY_STEPS, Searched, search, share_table
from stepfront.search.config import RunSettings
from stepfront.search.records.versions import versions

MIXES = {
    "default": dict(RunSettings().initial_plans),
    "dp for gap": {"uniform": 4, "dp": 8, "monotone": 8, "fewer_steps": 8},
    "dp for gap and monotone": {"uniform": 4, "dp": 16, "fewer_steps": 8},
    "dp beside the default": {"uniform": 4, "gap": 5, "dp": 6, "monotone": 6, "fewer_steps": 7},
    "dp alone": {"uniform": 4, "dp": 24},
    "gap alone": {"uniform": 4, "gap": 24},
}
"""First generations of 28 plans by a name for the table."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/digits"), help="run with a supernet")
    parser.add_argument("--work", type=Path, default=Path("runs/bench-initial-plans"), help="folder for scores")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--budget", type=int, default=60)
    parser.add_argument("--images", type=int, default=128)
    given = parser.parse_args()
    found: dict[str, list[Searched]] = {name: [] for name in MIXES}
    for seed in range(given.seeds):
        for name, wanted in MIXES.items():
            plans = "{" + ", ".join(f"{kind}: {count}" for kind, count in wanted.items()) + "}"
            begin = time.monotonic()
            found[name].append(
                search(
                    given.run,
                    given.work,
                    [*TWENTY_STEPS, f"initial_plans={plans}"],
                    seed,
                    given.budget,
                    given.images,
                )
            )
            print(f"seed {seed}, {name}: {time.monotonic() - begin:.0f} s", flush=True)
    shown = [n for n in (10, 28, 40, 60, 80, 120) if n <= given.budget]
    table = share_table(found, shown, given.images)
    table.insert(1, "first generation", [", ".join(f"{n} {k}" for k, n in MIXES[name].items()) for name in MIXES])
    options = f"--seeds {given.seeds} --budget {given.budget} --images {given.images}"
    used = ", ".join(f"{k} {v}" for k, v in versions().items())
    text = f"""# Initial plans

Made by `make bench-initial-plans` (`python -m benchmarks.initial_plans {options}`) on {time.strftime("%Y-%m-%d")};
{used}.

The digits supernet of the quickstart, up to 20 steps of unipc_2 on the quadratic grid in ten stages, with the default
variation and screening; only the first generation differs. {given.images} images per score, one noise seed. The table
shows the share of the hypervolume of the union of all fronts, median of {given.seeds} seeds, by FID evaluations and by
network TFLOPs, which is what a search costs.

"""
    given.docs.mkdir(parents=True, exist_ok=True)
    (given.docs / "bench-initial-plans.md").write_text(text + markdown(table) + "\n", encoding="utf-8")
    print(table.to_string())


if __name__ == "__main__":
    main()
