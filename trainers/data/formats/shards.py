"""Find files that each hold a part of a dataset and are named after a split, such as test/0000.tar."""

from __future__ import annotations

import re
from pathlib import Path

from stepfront.errors import InputError


def find_shards(path: Path, suffixes: tuple[str, ...]) -> tuple[list[Path], list[Path]]:
    """Return the training files and the held-out files at `path`, one file or a folder of them, in order.

    A file or its folder that begins with val (or else with test) is held out; all others are for training.  Raises
    InputError when there is no training file.
    """
    if not path.exists():
        raise InputError(f"no data at {path}")
    if path.is_file():
        return [path], []
    files = sorted(f for f in path.rglob("*") if f.name.endswith(suffixes) and f.is_file() and f.name[0] != ".")
    parts: dict[str, list[Path]] = {"train": [], "val": [], "test": []}
    for file in files:
        parts[_split(file.relative_to(path))].append(file)
    if not parts["train"]:
        found = f" among {len(files)} files" if files else ""
        raise InputError(f"no training files in {path}{found}; expected {' or '.join(suffixes)} files")
    return parts["train"], parts["val"] or parts["test"]


def _split(file: Path) -> str:
    for part in (file.name, *reversed(file.parts[:-1])):
        if match := re.match(r"(val|test)(id|idation)?(?![a-z])", part.lower()):
            return match[1]
        if re.match(r"train(ing)?(?![a-z])", part.lower()):
            break
    return "train"
