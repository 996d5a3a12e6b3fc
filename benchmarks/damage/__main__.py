"""Damage the files of a search and of its supernet, one fault at a time, and count what the verbs make of it.

Run it with `make bench-damage`; it writes docs/bench-damage.md.

Each fault is put into a copy of one small finished search: a file is cut, emptied, deleted, replaced by a folder,
filled with values of other types or with nulls, or one of its bytes is flipped.  Each verb then has to work with the
same result as before, or to fail with one line and exit code 2 (`doctor`: to name what is wrong).  A traceback, and a
result that differs in silence, are counted: both must be 0.  The faults are tried a second time without the checksums,
as an older search has none: what remains then is found by the shape of the files.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.arguments import positive
from benchmarks.damage.faults import FAULTS
from benchmarks.damage.matrix import Row, run_matrix
from benchmarks.damage.small_search import make_base
from benchmarks.damage.verbs import VERBS, Verb
from benchmarks.markdown import markdown, page_cells
from stepfront.search.config import WorkerSettings
from stepfront.search.execution.ray_session import ray_session

Cells = dict[str, str]
"""One line of the page's table."""

COLUMNS = (
    "fault",
    "checksums",
    "injected",
    "calls",
    "refused",
    "same",
    "tracebacks",
    "silent",
    "unfound",
    "unknowable",
)


def cells_of(row: Row, verbs: Sequence[Verb]) -> Cells:
    """Return the line of a row that was measured today with these verbs."""
    cells = {name: str(getattr(row, name)) for name in COLUMNS} | {"checksums": "yes" if row.checksums else "no"}
    return {"verbs": ", ".join(verb.name for verb in verbs)} | cells | {"measured": time.strftime("%Y-%m-%d")}


def page(rows: Sequence[Cells]) -> str:
    """Return docs/bench-damage.md."""
    return (
        "# Damage\n\nMade by `make bench-damage`, or in parts: `python -m benchmarks.damage --verbs NAMES --faults"
        " NAMES --keep`.\n\n"
        "One fault at a time is put into each file of a small search and its supernet, or with `--most` into some of"
        " them, evenly picked; then the verbs are called.\n\n"
        "- refused: one line and exit code 2, or a finding of `doctor`\n"
        "- same: the verb worked, and its numbers were those of the undamaged search\n"
        "- tracebacks, and silent (other numbers without a word): 0 is the aim\n"
        "- unfound: faults that `doctor` did not find, where there are checksums\n"
        "- unknowable: other numbers where there are no checksums, such as a flipped digit in a JSON file\n\n"
        f"{markdown(pd.DataFrame(list(rows)))}\n"
    )


def _key(cells: Cells) -> tuple[str, str, str]:
    return cells["verbs"], cells["fault"], cells["checksums"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, help="finished run to damage copies of (default: one is made)")
    parser.add_argument("--faults", default=",".join(FAULTS), help="faults, comma-separated")
    parser.add_argument("--verbs", default=",".join(verb.name for verb in VERBS), help="verbs, comma-separated")
    parser.add_argument("--most", type=int, help="number of files that a fault is put into (default: all)")
    parser.add_argument("--seeds", type=positive, default=1, help="number of times that each fault is drawn")
    parser.add_argument("--without", choices=["both", "no", "only"], default="both", help="tries without checksums")
    parser.add_argument("--out", type=Path, default=Path("docs/bench-damage.md"))
    parser.add_argument("--keep", action="store_true", help="keep the lines of the page that are not measured now")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    verbs = [verb for verb in VERBS if verb.name in given.verbs.split(",")]
    kept = page_cells(given.out) if given.keep else []
    # One Ray for all calls: each would start its own, which takes longer than the verb.
    with tempfile.TemporaryDirectory() as scratch, ray_session(WorkerSettings()):
        base = given.base or make_base(Path(scratch))
        rows: list[Row] = []
        for checksums in {"both": (True, False), "no": (True,), "only": (False,)}[given.without]:
            for seed in range(given.seeds):
                for row in run_matrix(base, given.faults.split(","), verbs, checksums, seed, given.most):
                    rows.append(row)
                    new = [cells_of(row, verbs) for row in rows]
                    kept = [cells for cells in kept if _key(cells) not in map(_key, new)]
                    given.out.write_text(page([*kept, *new]), encoding="utf-8")
    sys.exit(any(row.tracebacks or row.silent or row.unfound for row in rows))


if __name__ == "__main__":
    main()
