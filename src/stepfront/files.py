"""Write files completely or not at all, and read them with errors of one line.

A file is written beside its place and renamed, so that no reader ever meets half of one.  Where the folder has a record
of checksums, it covers the new file (checksums.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepfront.beside import part_of, remove_left_parts
from stepfront.checksums import expect, read_checked
from stepfront.errors import InputError


def write_atomically(path: Path, write: Callable[[Path], None], recorded: bool = True) -> None:
    """Call `write` on a file beside `path`, sync it to the disk and rename it to `path`.

    What stood at `path` stays complete until then, and what a killed process left beside it is deleted.  The folder's
    record of checksums, if any, covers the file unless `recorded` is False.  Raises InputError when the disk is full or
    the place can't be written.
    """
    path = Path(path)
    beside = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_left_parts(path)
        write(beside)
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        if recorded:
            expect(path, beside)
        os.replace(beside, path)
    except OSError as error:
        raise InputError(f"can't write {path}: {error.strerror or error}; nothing there was changed") from error
    except Exception as error:
        # safetensors and pyarrow wrap a full disk in errors of their own.
        if "No space left" in str(error):
            raise InputError(f"can't write {path}: no space left on the disk; nothing there was changed") from error
        raise
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def write_text(path: Path, text: str, recorded: bool = True) -> None:
    """Write `text` as UTF-8, atomically; `recorded` as in `write_atomically`."""
    write_atomically(path, lambda beside: _write(beside, text), recorded)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as readable JSON, atomically.

    Raises ValueError for not-a-number, which other readers could not parse.
    """
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Return the mapping in a JSON file.

    Raises InputError, which names `what` the file should be, when it is missing, damaged (by its checksum, too) or not
    a mapping.
    """
    content = _load_json(path, what)
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a {what}: a mapping was expected, not {type(content).__name__}")
    return content


def read_json_list(path: Path, what: str) -> list[Any]:
    """Return the list in a JSON file.  Raises InputError as `read_json` does."""
    content = _load_json(path, what)
    if not isinstance(content, list):
        raise InputError(f"{path} is not a {what}: a list was expected, not {type(content).__name__}")
    return content


def _load_json(path: Path, what: str) -> Any:
    try:
        return json.loads(read_checked(path).decode("utf-8"))
    except FileNotFoundError:
        raise InputError(f"no {what} at {path}") from None
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a readable {what}: {error}") from None


def free_name(path: Path) -> Path:
    """Return PATH-1, PATH-2 ...: the first that does not exist."""
    return next(place for n in itertools.count(1) if not os.path.lexists(place := path.with_name(f"{path.name}-{n}")))


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
