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
import contextlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pandas as pd

from benchmarks.search import markdown
from stepfront.checksums import CHECKSUMS_FILE
from stepfront.errors import InputError

HARMLESS = ("lock", "mlflow.lock", f".{CHECKSUMS_FILE}.lock", ".lock.holder")
"""Files that hold nothing: only a folder in their place is a fault."""

SETTINGS = {
    "name": "damage",
    "data": {"format": "digits", "limit": 300},
    "network": {"base": 8, "multipliers": [1, 2], "blocks": 1, "groups": 4, "widths": [0.5, 1.0]},
    "training": {"steps": 60, "batch": 16, "checkpoint_every": 30, "held_out_images": 32},
    "features": {"examine": "skip"},
    "sampler": {"steps": 4},
    "space": {"stages": 4},
    "budget": {"trials": 10},
    "initial_plans": {"uniform": 2, "monotone": 4},
    "evaluation": {"images": 64, "batch": 64},
    "confirm": {"images": 32, "seeds": 2, "max_seeds": 2, "features": {"examine": "skip"}},
    "workers": {"count": 1, "engine": "plain"},
}


@dataclass
class Verb:
    """A verb as it is called on RUN, and what is compared of its result."""

    name: str
    words: Sequence[str]


VERBS = (
    Verb("front", ("front", "RUN", "--json")),
    Verb("claim", ("claim", "RUN", "--json")),
    Verb("compare", ("compare", "RUN", "RUN", "--json")),
    Verb("report", ("report", "RUN")),
    Verb("ui", ("ui", "RUN")),
    Verb("sync", ("sync", "RUN")),
    Verb("export", ("export", "RUN", "--out", "RUN/../out")),
    Verb("confirm", ("confirm", "RUN", "--json")),
    Verb("baselines", ("baselines", "RUN", "--evaluations", "2", "--json")),
    Verb("register", ("register", "RUN")),
    Verb("doctor", ("doctor", "RUN")),
)
READING = ("front", "claim", "compare", "report", "ui", "export", "doctor")
"""Verbs that take a moment; the others write to MLflow or evaluate plans."""


def cut(path: Path, rng: random.Random) -> None:
    """Keep the first part of the file."""
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(1, max(2, len(content)))])


def empty(path: Path, rng: random.Random) -> None:
    """Keep nothing of the file."""
    path.write_bytes(b"")


def flip(path: Path, rng: random.Random) -> None:
    """Flip one bit of one byte."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))


def delete(path: Path, rng: random.Random) -> None:
    """Delete the file."""
    path.unlink()


def folder(path: Path, rng: random.Random) -> None:
    """Put a folder in the file's place."""
    path.unlink()
    path.mkdir()


def other_types(path: Path, rng: random.Random) -> None:
    """Give one column, or one key, values of another type."""
    _rewrite(path, rng, lambda value: 7 if isinstance(value, str | list | dict) else "seven")


def nulls(path: Path, rng: random.Random) -> None:
    """Give one column, or one key, no values."""
    _rewrite(path, rng, lambda value: None)


def _rewrite(path: Path, rng: random.Random, change: Callable[[object], object]) -> None:
    if path.suffix == ".parquet":
        table = pd.read_parquet(path)
        column = rng.choice(list(table.columns))
        values = [change(value) for value in table[column].tolist()]
        table.assign(**{column: pd.Series(values, dtype=object)}).to_parquet(path)
        return
    content = json.loads(path.read_text())
    if not content:
        path.write_text(json.dumps(change("") if change("") is None else {"seven": 7}))
        return
    place = content
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = rng.choice(keys)
        inner = place[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.5:
            place = inner
            continue
        place[key] = change(inner)
        break
    path.write_text(json.dumps(content))


FAULTS: dict[str, Callable[[Path, random.Random], None]] = {
    "cut": cut,
    "emptied": empty,
    "byte flipped": flip,
    "deleted": delete,
    "folder": folder,
    "other types": other_types,
    "nulls": nulls,
}


@dataclass
class Outcome:
    """What a verb did: its exit code, what it printed, and the traceback where it had one."""

    code: int
    out: str
    error: str
    trace: str = ""
    result: str = ""


@dataclass
class Row:
    """The outcomes of one fault over all files and verbs."""

    fault: str
    checksums: bool
    injected: int = 0
    calls: int = 0
    refused: int = 0
    same: int = 0
    tracebacks: int = 0
    silent: int = 0
    unfound: int = 0
    unknowable: int = 0
    examples: list[str] = field(default_factory=list)


def call(words: Sequence[str], run: Path) -> Outcome:
    """Run a verb in this process; a server is not started."""
    from stepfront.search.cli.main import main

    given = ["stepfront", *(word.replace("RUN", str(run)) for word in words)]
    out, error = io.StringIO(), io.StringIO()
    trace, code = "", 0
    served = "stepfront.search.tracking.server._serve"
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
        mock.patch.object(sys, "argv", given),
        mock.patch(served, return_value=None),
        mock.patch("stepfront.search.cli.main.handle_sigterm", return_value=None),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            trace, code = traceback.format_exc(), 1
    return Outcome(code, out.getvalue(), error.getvalue(), trace)


def result_of(verb: str, outcome: Outcome, run: Path) -> str:
    """Return what a verb's result is compared by: its numbers, without places and times."""
    if outcome.code != 0:
        return ""
    if verb == "export":
        return (run.parent / "out" / "plan.json").read_text()
    if verb == "report":
        return (run / "search" / "front.csv").read_text()
    if verb in ("front", "claim", "compare", "confirm", "baselines"):
        return outcome.out.replace(str(run), "RUN")
    return ""


def files_of(run: Path) -> list[str]:
    """Return the files of the search and its supernet, relative to the run."""
    return sorted(path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file())


@contextlib.contextmanager
def copy_of(base: Path) -> Iterator[Path]:
    """Yield a copy of a finished run, beside a copy of its MLflow database."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "runs"
        shutil.copytree(base.parent, place, ignore=shutil.ignore_patterns("mlartifacts"))
        yield place / base.name


def applies(fault: str, name: str) -> bool:
    """Return whether a fault can be put into a file."""
    last = name.rpartition("/")[2]
    if fault in ("other types", "nulls"):
        return name.endswith((".parquet", ".json"))
    return fault == "folder" if last in HARMLESS else True


def try_fault(
    base: Path, fault: str, files: Sequence[str], verbs: Sequence[Verb], row: Row, wanted: dict[str, str], seed: int
) -> None:
    """Put the fault into each file in turn, in a copy of the run, and call the verbs."""
    for name in files:
        if not applies(fault, name):
            continue
        with copy_of(base) as run:
            if not row.checksums:
                for record in run.rglob(CHECKSUMS_FILE):
                    record.unlink()
            if not (run / name).is_file():
                continue
            FAULTS[fault](run / name, random.Random(f"{seed} {fault} {name}"))
            row.injected += 1
            damaged = Path(tempfile.mkdtemp(dir=run.parent.parent)) / "damaged"
            shutil.copytree(run, damaged)
            for verb in verbs:
                # Each verb meets the fault, also after one that has mended it.
                shutil.rmtree(run)
                shutil.copytree(damaged, run)
                _judge(row, verb, name, run, wanted)
                shutil.rmtree(run.parent / "out", ignore_errors=True)


def _judge(row: Row, verb: Verb, name: str, run: Path, wanted: dict[str, str]) -> None:
    outcome = call(verb.words, run)
    row.calls += 1
    what = f"{verb.name}, {name} {row.fault}{'' if row.checksums else ' without checksums'}"
    if outcome.trace or "Traceback" in outcome.error:
        row.tracebacks += 1
        row.examples.append(f"TRACEBACK {what}: {(outcome.trace or outcome.error).strip().splitlines()[-1][:200]}")
        row.examples.append((outcome.trace or outcome.error)[-1500:])
    elif outcome.code not in (0, 1) and outcome.error.count("\n") != 1:
        row.tracebacks += 1
        row.examples.append(f"NOT ONE LINE {what}: {outcome.error[:300]}")
    elif outcome.code == 0 and verb.name != "doctor":
        same = result_of(verb.name, outcome, run) == wanted.get(verb.name, "")
        row.same += same
        if not same and row.checksums:
            row.silent += 1
            row.examples.append(f"SILENT {what}")
        elif not same:
            row.unknowable += 1
    else:
        row.refused += outcome.code != 0
        if verb.name == "doctor" and outcome.code == 0 and row.checksums:
            row.unfound += 1
            row.examples.append(f"UNFOUND {what}")


def make_base(place: Path) -> Path:
    """Run a small search with its baselines and confirmation in `place`, and return its run."""
    config = place / "c.yaml"
    runs = place / "runs"
    config.write_text(
        json.dumps(SETTINGS | {"directory": str(runs), "tracking": {"uri": f"sqlite:///{runs / 'mlflow.db'}"}})
    )
    run = str(runs / "damage")
    for words in (
        ["train", str(config)],
        ["search", str(config)],
        ["baselines", run, "--evaluations", "2"],
        ["confirm", run],
    ):
        outcome = call(words, runs / "damage")
        if outcome.code:
            raise InputError(f"the search to be damaged can't be made: {outcome.error or outcome.trace}")
    return runs / "damage"


def run_matrix(base: Path, faults: Sequence[str], verbs: Sequence[Verb], checksums: bool, seed: int = 0) -> list[Row]:
    """Return a row per fault."""
    with copy_of(base) as run:
        wanted = {}
        for verb in verbs:
            outcome = call(verb.words, run)
            if outcome.code:
                raise InputError(f"{verb.name} fails without any fault: {outcome.error or outcome.out}{outcome.trace}")
            wanted[verb.name] = result_of(verb.name, outcome, run)
    rows = []
    for fault in faults:
        rows.append(Row(fault, checksums))
        try_fault(base, fault, files_of(base), verbs, rows[-1], wanted, seed)
        print(json.dumps({k: v for k, v in vars(rows[-1]).items() if k != "examples"}), flush=True)
        for line in rows[-1].examples:
            print("  ", line, flush=True)
    return rows


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
    with tempfile.TemporaryDirectory() as scratch:
        base = given.base or make_base(Path(scratch))
        rows = []
        for checksums in {"both": (True, False), "no": (True,), "only": (False,)}[given.without]:
            for seed in range(given.seeds):
                rows += run_matrix(base, given.faults.split(","), verbs, checksums, seed)
    given.out.write_text(page(rows, verbs, time.monotonic() - begin), encoding="utf-8")
    sys.exit(any(row.tracebacks or row.silent or row.unfound for row in rows))


if __name__ == "__main__":
    main()
