"""Record the checksums of a folder's files, so that damage is found before it is believed.

The record, checksums.json, lies in a search's or a supernet's directory and covers its sub-folders.  A file that is
being replaced has two checksums there, of the new and of the old content: wherever a writer is killed, the record holds
what lies on the disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from stepfront.beside import part_of, remove_left_parts
from stepfront.errors import InputError

CHECKSUMS_FILE = "checksums.json"
COPY_STATE = ".stepfront-copy.json"
"""File that lies in the local copy of a run at a URI."""

NOT_RECORDED = ("mlflow.json", "lock")
"""Names that another process writes meanwhile."""

_KIND = "checksums of stepfront"
_DEPTH = 3  # SEARCH/earlier/DIGEST/front.parquet is the deepest


def begin_record(directory: Path) -> None:
    """Begin a record in `directory`, unless there is a usable one; files written from now on are recorded."""
    if _read(directory) is None:
        with contextlib.suppress(OSError), _locked(directory):
            _write(directory, {})


def record_of(path: Path) -> tuple[Path, str] | None:
    """Return the directory whose record covers a file, and the file's name in it; None where there is no record."""
    for directory in list(path.absolute().parents)[:_DEPTH]:
        if (directory / CHECKSUMS_FILE).is_file():
            name = path.absolute().relative_to(directory).as_posix()
            left_out = name == CHECKSUMS_FILE or name.startswith(NOT_RECORDED)
            return None if left_out or _read(directory) is None else (directory, name)
    return None


def expect(path: Path, content: Path) -> None:
    """Record that `path` is about to be replaced by the file `content`; nothing happens where there is no record."""
    found = record_of(path)
    if found is None:
        return
    directory, name = found
    new = _digest(content)
    old = _digest(path) if path.is_file() else None
    with _locked(directory):
        record = _read(directory) or {}
        before = [one for one in record.get(name, []) if one == old]  # damage is not recorded as what should be there
        _write(directory, record | {name: [new, *(one for one in before if one != new)]})


def forget(path: Path) -> None:
    """Remove a file from the record, because it is deleted or written by others from now on."""
    if (found := record_of(path)) is not None:
        directory, name = found
        with _locked(directory):
            record = _read(directory) or {}
            if record.pop(name, None) is not None:
                _write(directory, record)


def record_as_it_is(path: Path) -> None:
    """Record a file that another library has written."""
    if (found := record_of(path)) is not None:
        directory, name = found
        with _locked(directory):
            digests = [_digest(path), *([_content_digest(path)] if path.suffix == ".db" else [])]
            _write(directory, (_read(directory) or {}) | {name: digests})


def read_checked(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises InputError when they differ from the record, and OSError when the file can't be read.
    """
    path = Path(path)
    for last in (False, True):  # a writer may have replaced the file twice between the two reads
        content = path.read_bytes()
        found = record_of(path)
        expected = [] if found is None else (_read(found[0]) or {}).get(found[1], [])
        if not expected or hashlib.sha256(content).hexdigest() in expected:
            return content
        if last:
            break
    raise InputError(
        f"{path} is damaged or was changed by another program: its checksum is not that of {CHECKSUMS_FILE}; "
        f"`stepfront doctor {place_of_search(path)} --repair` rebuilds what can be rebuilt"
    )


def place_of_search(path: Path) -> str:
    """Return the directory of the search that a file belongs to, or is, as hints name it.

    The word SEARCH where it is not known, and for the local copy of a run at a URI.
    """
    for place in (path, *list(path.parents)[:_DEPTH]):
        if place.absolute().name == "search":
            is_copy = (place.absolute().parent / COPY_STATE).exists()
            return "SEARCH" if is_copy else shlex.quote(str(place))
    return "SEARCH"


def changed_since_written(path: Path) -> bool:
    """Return whether a recorded file differs from its checksum."""
    try:
        read_checked(path)
    except InputError:
        return True
    except OSError:
        return False
    return False


def recorded_names(directory: Path) -> set[str]:
    """Return the names of a directory's recorded files; none where there is no usable record."""
    return set(_read(directory) or {})


def damaged_files(directory: Path) -> dict[str, str]:
    """Return what is wrong with the recorded files of a directory, by their names; empty where nothing is.

    Raises InputError when the record itself is damaged.
    """
    record = _read(directory)
    if record is None:
        if not os.path.lexists(directory / CHECKSUMS_FILE):
            return {}
        raise InputError(f"{directory / CHECKSUMS_FILE} is damaged")
    found = {}
    for name, expected in sorted(record.items()):
        path = directory / name
        if not path.is_file():
            found[name] = "is not a file" if path.exists() else "is missing"
        elif _digest(path) not in expected and not (is_in_copy_of_uri(path) and _content_digest(path) in expected):
            found[name] = "is damaged"
    return found


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _content_digest(path: Path) -> str:
    """Return a digest of what a SQLite database holds, which a backup of it shares; "" for other and damaged files."""
    if path.suffix != ".db":
        return ""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as database:
            lines = "\n".join(database.iterdump())
    except sqlite3.Error:
        return ""
    return f"content:{hashlib.sha256(lines.encode()).hexdigest()}"


def is_in_copy_of_uri(path: Path) -> bool:
    """Return whether a file lies in the local copy of a run at a URI, whose databases are backups."""
    return any((folder / COPY_STATE).is_file() for folder in list(path.parents)[:_DEPTH])


def _read(directory: Path) -> dict[str, list[str]] | None:
    """Return the record; None where it is missing or damaged.  A digest of its own protects it."""
    try:
        content = json.loads((directory / CHECKSUMS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("kind") != _KIND or not isinstance(content.get("files"), dict):
        return None
    files: dict[str, list[str]] = content["files"]
    return files if content.get("sha256") == _digest_of(files) else None


def _write(directory: Path, files: dict[str, list[str]]) -> None:
    beside = part_of(directory / CHECKSUMS_FILE)
    content = {"kind": _KIND, "files": dict(sorted(files.items())), "sha256": _digest_of(files)}
    try:
        remove_left_parts(directory / CHECKSUMS_FILE)
        with open(beside, "w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, directory / CHECKSUMS_FILE)
    finally:
        beside.unlink(missing_ok=True)


def _digest_of(files: dict[str, list[str]]) -> str:
    return hashlib.sha256(json.dumps(dict(sorted(files.items()))).encode()).hexdigest()


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    place = directory / f".{CHECKSUMS_FILE}.lock"
    if place.is_dir():
        raise InputError(f"{place} is a folder where a lock file belongs; delete it")
    with FileLock(place, timeout=60):
        yield
