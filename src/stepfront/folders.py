"""Write folders completely or not at all: beside their place, then renamed to it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from stepfront.beside import is_part, part_of, remove_left_parts
from stepfront.errors import InputError


def check_free(out: Path, is_ours: Callable[[str], bool]) -> None:
    """Raise InputError unless a folder is missing, empty, or holds nothing but what an earlier call wrote.

    `is_ours` tells by the name.  What a killed process left in it counts as ours.
    """
    out = Path(out)
    if not os.path.lexists(out):
        return
    if not out.is_dir():
        raise InputError(f"--out {out} is a file; give a folder")
    others = sorted(one.name for one in os.scandir(out) if not (is_ours(one.name) or _is_left(one.name)))
    if others:
        raise InputError(f"{out} holds other files, such as {others[0]}; give a new folder")


@contextlib.contextmanager
def new_folder(out: Path, is_ours: Callable[[str], bool]) -> Iterator[Path]:
    """Yield a folder beside `out` to write into, which takes the place of `out` when the block ends without an error.

    Where the block fails, nothing is left, and what stood at `out` is as it was.  What a killed process left is
    deleted.  Raises InputError when `out` holds other files, when it can't be written, or the disk is full.
    """
    out = Path(out).absolute()
    check_free(out, is_ours)
    beside = part_of(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_left_parts(out)
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        yield beside
        _replace(out, beside)
    except OSError as error:
        raise InputError(f"can't write {out}: {error.strerror or error}; nothing there was changed") from error
    except Exception as error:
        # safetensors wraps a full disk in an error of its own.
        if "No space left" in str(error) and not isinstance(error, InputError):
            raise InputError(f"can't write {out}: no space left on the disk; nothing there was changed") from error
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _replace(out: Path, new: Path) -> None:
    """Rename `new` to `out`, whose earlier content is deleted."""
    if not os.path.lexists(out):
        os.rename(new, out)
        return
    old = part_of(out, "old")
    os.rename(out, old)
    try:
        os.rename(new, out)
    except OSError:
        os.rename(old, out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _is_left(name: str) -> bool:
    """Return whether a name is that of a file that was being written, by this version or by 0.1."""
    return is_part(name) or (name.startswith(".") and name.endswith(".part"))
