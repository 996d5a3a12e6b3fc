"""Interrupt a verb at its events, one at a time, call it again, and compare with an undisturbed call."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.damage.small_search import write_config
from benchmarks.kills.contents import Contents, leftovers
from benchmarks.kills.file_events import Fault, Watch
from benchmarks.kills.forked import Ended, call_forked
from benchmarks.kills.verbs import PLACE, Verb
from stepfront.errors import InputError


@dataclass
class Row:
    """What became of one verb under one fault."""

    verb: str
    fault: Fault
    events: int
    tried: int = 0
    tracebacks: int = 0
    half: int = 0
    refused: int = 0
    different: int = 0
    left: int = 0
    found: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def faults(self) -> int:
        """The number of things that must not be."""
        return self.tracebacks + self.half + self.refused + self.different + self.left + self.found


def interrupt(base: Path, verb: Verb, fault: Fault, most: int, checked: bool = True) -> Row:
    """Return what becomes of a verb that is interrupted at `most` of its events, evenly picked.

    `base` holds a search in runs/damage, which `stepfront doctor` checks afterwards where `checked`.  Raises InputError
    when the verb fails without a fault.
    """
    with tempfile.TemporaryDirectory(prefix="stepfront-kills-") as scratch:
        root = Path(scratch) / "root"
        _copy(base, verb, root)
        undisturbed = _call(verb.words, root, fault, 0)
        if undisturbed.code:
            raise InputError(f"{verb.name} fails without any fault: {undisturbed.error}")
        wanted, whole = verb.made(root), verb.whole(root)
        row = Row(verb.name, fault, undisturbed.events)
        for at in sorted(set(np.linspace(1, row.events, min(most, row.events)).round().astype(int).tolist())):
            shutil.rmtree(root)
            _copy(base, verb, root)
            _try(row, verb, root, at, wanted, whole)
            if checked and verb.checked:
                _check(row, root, at)
    return row


def _copy(base: Path, verb: Verb, root: Path) -> None:
    shutil.copytree(base, root)
    write_config(root)
    verb.before(root)


def _call(words: Sequence[str], root: Path, fault: Fault, at: int) -> Ended:
    placed = [str(root / word.removeprefix("./")) if word.startswith("./") else word for word in words]
    return call_forked(placed, Watch(root, fault, at), root.parent)


def _try(row: Row, verb: Verb, root: Path, at: int, wanted: Contents, whole: Contents) -> None:
    before = verb.whole(root)
    ended = _call(verb.words, root, row.fault, at)
    row.tried += 1
    what = f"{verb.name} {row.fault} at event {at} of {row.events}"
    if ended.traceback or (row.fault == "disk full" and ended.code == 2 and ended.error.count("stepfront: ") != 1):
        row.tracebacks += 1
        row.examples.append(f"TRACEBACK {what}: {ended.error[-1500:]}")
    if (now := verb.whole(root)) not in (before, whole):
        row.half += 1
        row.examples.append(f"HALF {what}: {now}")
    again = _call(verb.then or verb.words, root, row.fault, 0)
    if again.code and ended.code:  # a call that succeeded in spite of the fault need not be possible twice
        row.refused += 1
        row.examples.append(f"REFUSED after {what}: {again.error[-1500:]}")
    elif (made := verb.made(root)) != wanted:
        row.different += 1
        row.examples.append(f"DIFFERENT after {what}: {_difference(made, wanted)}")
    if left := leftovers(root):
        row.left += 1
        row.examples.append(f"LEFT after {what}: {', '.join(left[:5])}")


def _check(row: Row, root: Path, at: int) -> None:
    what = f"{row.verb} {row.fault} at event {at} of {row.events}"
    if (doctor := _call(("doctor", f"./{PLACE}"), root, row.fault, 0)).code:
        row.found += 1
        wrong = [line for line in doctor.out.splitlines() if line.startswith("FAIL")]
        row.examples.append(f"DOCTOR after {what}: {'; '.join(wrong)[:500]} {doctor.error[-500:]}")


def _difference(made: Contents, wanted: Contents) -> str:
    keys = [key for key in {**made, **wanted} if made.get(key) != wanted.get(key)]
    return "; ".join(f"{key}: {str(made.get(key))[:300]}, not {str(wanted.get(key))[:300]}" for key in keys[:3])
