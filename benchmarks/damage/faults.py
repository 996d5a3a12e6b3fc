"""Define the faults: each takes a file and damages it.

What is damaged, and how, is drawn from a random generator.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from stepfront.checksums import CHECKSUMS_FILE

HARMLESS = ("lock", "mlflow.lock", f".{CHECKSUMS_FILE}.lock", ".lock.holder")
"""Files that hold nothing: only a folder in their place is a fault."""


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


def applies(fault: str, name: str) -> bool:
    """Return whether a fault can be put into a file."""
    last = name.rpartition("/")[2]
    if fault in ("other types", "nulls"):
        return name.endswith((".parquet", ".json"))
    return fault == "folder" if last in HARMLESS else True
