"""List the files of a run, notice which have changed, and copy them while they are in use."""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
from pathlib import Path

from stepfront.checksums import CHECKSUMS_FILE
from stepfront.trainers.networks.card import CARD_FILE


def belongs_to_run(name: str) -> bool:
    """Return whether a file is the run's: no lock, no log of a database, nothing that is being written."""
    hidden = any(part.startswith(".") for part in name.split("/"))
    return not hidden and not re.fullmatch(r"lock|.*\.lock|.*-(wal|shm|journal)", name.rpartition("/")[2])


def upload_order(name: str) -> tuple[int, str]:
    """Sort studies first, then checksums, and a supernet's card last: it shows that a supernet is complete.

    A record of checksums holds the new and the old one of each file, so it must not be older than the tables.
    """
    last = name.rpartition("/")[2]
    places = {CHECKSUMS_FILE: 1, CARD_FILE: 3}
    return (0 if last.startswith("study.") else places.get(last, 2)), name


def signatures(folder: Path) -> dict[str, list[int]]:
    """Return the signature of each of a run's files, by its path below the folder."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: signature(path) for name, path in names.items() if belongs_to_run(name)}


def signature(path: Path) -> list[int]:
    """Return size and time of a file and, for a database, of its write-ahead log."""
    found: list[int] = []
    for one in (path, path.with_name(path.name + "-wal")):
        with contextlib.suppress(FileNotFoundError):
            stat = one.stat()
            found += [stat.st_size, stat.st_mtime_ns]
    return found


def copy_as_it_is(path: Path, to: Path) -> None:
    """Copy a file that may be in use: a database and its log by a backup into one file.

    Raises FileNotFoundError when the file is missing.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".db":
        try:
            with (
                contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", timeout=60, uri=True)) as source,
                contextlib.closing(sqlite3.connect(to)) as target,
            ):
                source.backup(target)
                target.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
            return
        except sqlite3.DatabaseError:  # missing or damaged: as it is
            to.unlink(missing_ok=True)
    shutil.copyfile(path, to)
