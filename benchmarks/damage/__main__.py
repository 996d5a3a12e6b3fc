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

from benchmarks.damage.faults import FAULTS
from benchmarks.damage.matrix import Row, run_matrix
from benchmarks.damage.small_search import make_base
from benchmarks.damage.verbs import VERBS, Verb
from benchmarks.markdown import markdown
from stepfront.search.config import WorkerSettings
from stepfront.search.execution.ray_session import ray_session


def page(rows: Sequence[Row], verbs: Sequence[Verb], seconds: float) -> str:
    """Return docs/bench-damage.md."""
    columns = ("fault", "checksums", "injected", "calls", "refused", "same", "tracebacks", "silent", "unfound")
    columns += ("unknowable",)
    table = pd.DataFrame([{name: getattr(row, name) for name in columns} for row in rows])
    names = ", ".join(verb.name for verb in verbs)
    return (
        f"# Damage\n\nMade by `make bench-damage` on {time.strftime('%Y-%m-%d')} in {seconds / 60:.0f} minutes.\n\n"
        f"One fault at a time is put into each file of a small search and its supernet; then {names} are called.\n\n"
        "- refused: one line and exit code 2, or a finding of `doctor`\n"
        "- same: the verb worked, and its numbers were those of the undamaged search\n"
        "- tracebacks, and silent (other numbers without a word): 0 is the aim\n"
        "- unfound: faults that `doctor` did not find, where there are checksums\n"
        "- unknowable: other numbers where there are no checksums, such as a flipped digit in a JSON file\n\n"
        f"{markdown(table)}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, help="finished run to damage copies of (default: one is made)")
    parser.add_argument("--faults", default=",".join(FAULTS), help="faults, comma-separated")
    parser.add_argument("--verbs", default=",".join(verb.name for verb in VERBS), help="verbs, comma-separated")
    parser.add_argument("--seeds", type=int, default=1, help="number of times that each fault is drawn")
    parser.add_argument("--without", choices=["both", "no", "only"], default="both", help="tries without checksums")
    parser.add_argument("--out", type=Path, default=Path("docs/bench-damage.md"))
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    verbs = [verb for verb in VERBS if verb.name in given.verbs.split(",")]
    begin = time.monotonic()
    # One Ray for all calls: each would start its own, which takes longer than the verb.
    with tempfile.TemporaryDirectory() as scratch, ray_session(WorkerSettings()):
        base = given.base or make_base(Path(scratch))
        rows = []
        for checksums in {"both": (True, False), "no": (True,), "only": (False,)}[given.without]:
            for seed in range(given.seeds):
                rows += run_matrix(base, given.faults.split(","), verbs, checksums, seed)
    given.out.write_text(page(rows, verbs, time.monotonic() - begin), encoding="utf-8")
    sys.exit(any(row.tracebacks or row.silent or row.unfound for row in rows))


if __name__ == "__main__":
    main()
