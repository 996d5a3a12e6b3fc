"""Put each fault into each file in turn, call the verbs, and count what they make of it."""

from __future__ import annotations

import json
import random
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.damage.faults import FAULTS, applies
from benchmarks.damage.small_search import copy_of, files_of
from benchmarks.damage.verbs import Verb, call, result_of
from stepfront.checksums import CHECKSUMS_FILE
from stepfront.errors import InputError


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


def run_matrix(
    base: Path, faults: Sequence[str], verbs: Sequence[Verb], checksums: bool, seed: int = 0, most: int | None = None
) -> Iterator[Row]:
    """Yield a row per fault, which is put into `most` of the files, evenly picked; None: into all."""
    with copy_of(base) as run:
        wanted = {}
        for verb in verbs:
            outcome = call(verb.words, run)
            if outcome.code:
                raise InputError(f"{verb.name} fails without any fault: {outcome.error or outcome.out}{outcome.trace}")
            wanted[verb.name] = result_of(verb.name, outcome, run)
    for fault in faults:
        row = Row(fault, checksums)
        names = _evenly([name for name in files_of(base) if applies(fault, name)], most)
        try_fault(base, fault, names, verbs, row, wanted, seed)
        print(json.dumps({k: v for k, v in vars(row).items() if k != "examples"}), flush=True)
        for line in row.examples:
            print("  ", line, flush=True)
        yield row


def _evenly(names: Sequence[str], most: int | None) -> list[str]:
    picked = np.linspace(0, len(names) - 1, min(most or len(names), len(names))).round().astype(int)
    return [names[i] for i in sorted(set(picked.tolist()))]


def try_fault(
    base: Path, fault: str, files: Sequence[str], verbs: Sequence[Verb], row: Row, wanted: dict[str, str], seed: int
) -> None:
    """Put the fault into each file in turn, in a copy of the run, and call the verbs."""
    for name in files:
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
                judge(row, verb, name, run, wanted)
                shutil.rmtree(run.parent / "out", ignore_errors=True)


def _without_progress(error: str) -> list[str]:
    """Return the lines that are not progress, which begins with the time where there is no terminal."""
    return [line for line in error.splitlines() if line.strip() and not re.match(r"\d{4}-\d\d-\d\d \d\d:", line)]


def judge(row: Row, verb: Verb, name: str, run: Path, wanted: dict[str, str]) -> None:
    """Call the verb on a damaged run, and add what it made of the fault to the row."""
    outcome = call(verb.words, run)
    row.calls += 1
    what = f"{verb.name}, {name} {row.fault}{'' if row.checksums else ' without checksums'}"
    if outcome.trace or "Traceback" in outcome.error:
        row.tracebacks += 1
        row.examples.append(f"TRACEBACK {what}: {(outcome.trace or outcome.error).strip().splitlines()[-1][:200]}")
        row.examples.append((outcome.trace or outcome.error)[-1500:])
    elif outcome.code not in (0, 1) and len(_without_progress(outcome.error)) != 1:
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
