"""Kill verbs at their file events, fill their disk, and count what the next call can't mend.

Run it with `make bench-kills`; it writes docs/bench-kills.md.

A verb is called on a copy of a small finished search, in a process that ends at one of the events of file_events.py, or
whose disk is full from that event on.  Then the verb is called again.  What it makes must equal what an undisturbed
call makes; nothing half-written may lie about, and `stepfront doctor` must find nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from benchmarks.damage.small_search import make_base
from benchmarks.kills.file_events import Fault
from benchmarks.kills.forked import import_heavy
from benchmarks.kills.matrix import Row, interrupt
from benchmarks.kills.verbs import VERBS
from benchmarks.markdown import markdown, page_cells

FAULTS: tuple[Fault, ...] = ("killed", "disk full")


Cells = dict[str, str]
"""One line of the page's table."""


def cells_of(row: Row) -> Cells:
    """Return the line of a row that was measured today."""
    cells = {key: str(value) for key, value in asdict(row).items() if key != "examples"}
    return cells | {"measured": time.strftime("%Y-%m-%d")}


def page(rows: Sequence[Cells]) -> str:
    """Return docs/bench-kills.md."""
    names = [verb.name for verb in VERBS]
    done = {_key(row) for row in rows}
    missing = {fault: [name for name in names if (name, fault) not in done] for fault in FAULTS}
    not_measured = "; ".join(f"{fault}: {', '.join(left)}" for fault, left in missing.items() if left)
    table = pd.DataFrame(sorted(rows, key=lambda row: (names.index(row["verb"]), row["fault"])))
    return (
        "# Kills and full disks\n\nMade by `make bench-kills`, or verb by verb: `python -m benchmarks.kills --verbs"
        f" NAMES --keep`. Not measured: {not_measured or 'nothing'}.\n\nEach verb is called on a copy of a"
        " small finished search, and interrupted at one event: a file that is opened for writing, renamed, linked or"
        " deleted, a folder that is made or deleted, a transaction that is about to be committed. It is killed there"
        " (SIGKILL), or its disk is full from there on. Then it is called again.\n\n"
        "- events: of an undisturbed call; tried: those at which it was interrupted, evenly picked\n"
        "- tracebacks: instead of one line\n"
        "- half: what it makes was neither missing, nor as before, nor complete when it ended\n"
        "- refused: the next call failed\n"
        "- different: the next call made something else than an undisturbed one\n"
        "- left: half-written files lay about after the next call\n"
        "- found: `stepfront doctor` found something wrong after the next call\n\n"
        f"{markdown(table)}\n"
    )


def _key(row: Cells) -> tuple[str, str]:
    return row["verb"], row["fault"]


def main() -> None:
    """Interrupt the verbs that are asked for, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--base", type=Path, help="folder that holds a finished search in runs/damage (default: one is made)"
    )
    parser.add_argument("--verbs", default=",".join(verb.name for verb in VERBS), help="verbs, comma-separated")
    parser.add_argument("--faults", default=",".join(FAULTS), help="faults, comma-separated")
    parser.add_argument("--most", type=int, default=40, help="number of events at which a verb is interrupted")
    parser.add_argument("--out", type=Path, default=Path("docs/bench-kills.md"))
    parser.add_argument("--keep", action="store_true", help="keep the lines of the page that are not measured now")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    verbs = [verb for verb in VERBS if verb.name in given.verbs.split(",")]
    import_heavy()
    kept = page_cells(given.out) if given.keep else []
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        # Renamed: a run looks for what its copy lacks where it was made.
        base = given.base or make_base(Path(scratch) / "made").parent.parent.rename(Path(scratch) / "base")
        for verb in verbs:
            for fault in [fault for fault in FAULTS if fault in given.faults.split(",")]:
                rows.append(interrupt(base, verb, fault, given.most))
                print(json.dumps({k: v for k, v in asdict(rows[-1]).items() if k != "examples"}), flush=True)
                print(*(f"  {line}" for line in rows[-1].examples), sep="\n", flush=True)
                new = [cells_of(row) for row in rows]
                kept = [cells for cells in kept if _key(cells) not in map(_key, new)]
                given.out.write_text(page([*kept, *new]), encoding="utf-8")
    sys.exit(any(row.faults for row in rows))


if __name__ == "__main__":
    main()
