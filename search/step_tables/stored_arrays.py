"""Store arrays that are measured once per search, under a key of all that they were measured from."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from stepfront.files import write_atomically

_KEY = "made_from"


def read_arrays(path: Path, key: str) -> dict[str, np.ndarray] | None:
    """Return the arrays of a file by name; None where there is none, a damaged one, or one with another key."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored if name != _KEY} if str(stored[_KEY]) == key else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def write_arrays(path: Path, key: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name, with the key of what they were measured from."""

    def write(part: Path) -> None:
        with open(part, "wb") as file:
            np.savez(file, allow_pickle=False, **{**arrays, _KEY: np.array(key)})

    write_atomically(path, write)
