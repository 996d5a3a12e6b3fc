"""Optuna storages: a setting and a directory in; one that outlives killed drivers and short outages out."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from stepfront.addresses import redacted, resolved
from stepfront.errors import InputError
from stepfront.files import write_text
from stepfront.search.algorithm.trials import RESULT

OWN_STUDY = "stepfront"
JOURNAL_FILE, DATABASE_FILE, NAME_FILE = "study.journal", "study.db", "study.name"

PATIENCE = 120.0
"""Seconds for which a storage that is locked or away is waited for."""

T = TypeVar("T")


def open_storage(url: str | None, directory: Path) -> BaseStorage:
    """SQLite in `directory` (default), `journal` (a file there), or a database by its URL, whose `${NAME}`s are the
    environment's.

    Raises InputError when the storage can't be opened.
    """
    directory.mkdir(parents=True, exist_ok=True)
    named = url
    url = resolved(url) if url else url
    try:
        if url == "journal":
            path = directory / JOURNAL_FILE
            # The directory's own lock is held: a lock beside the journal is one that a killed driver left.
            path.with_name(path.name + ".lock").unlink(missing_ok=True)
            cut_torn_line(path)
            return JournalStorage(JournalFileBackend(str(path)))
        if url is None:
            path = directory / DATABASE_FILE
            with sqlite3.connect(path) as connection:
                # Write-ahead: one sync a commit instead of three, and readers never wait.  It stays with the file.
                connection.execute("PRAGMA journal_mode=WAL")
            connection.close()
            url = f"sqlite:///{path}"
        if url.startswith("postgresql://"):  # SQLAlchemy's own choice of a driver differs from version to version
            url = "postgresql+psycopg://" + url.removeprefix("postgresql://")
        options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
        return RDBStorage(url, engine_kwargs=options)
    except ImportError:
        raise InputError(
            f"the driver of the storage {redacted(named)} is not installed; for PostgreSQL: pip install "
            "'stepfront[postgres]'"
        ) from None
    except Exception as error:  # SQLAlchemy, its drivers and sqlite3 each have errors of their own
        place = redacted(named) if named else str(directory / DATABASE_FILE)
        raise InputError(f"the search's storage {place} can't be opened: {_first_line(error)}") from error


def close_storage(storage: BaseStorage) -> None:
    """Lets go of the storage's files.  SQLite's are then one, without a log beside it, and may be copied."""
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


def finished_numbers(url: str | None, directory: Path) -> set[int] | None:
    """The numbers of the study's trials that have a result; None where its file is damaged.

    Raises InputError where a database does not answer.
    """
    storage = None
    try:
        storage = open_storage(url, directory)
        found = storage.get_all_trials(storage.get_study_id_from_name(study_name(url, directory)), deepcopy=False)
    except KeyError:
        return set()
    except Exception as error:  # a damaged file raises what sqlite3, SQLAlchemy or json please
        if is_file(url) and any(map(_is_damage, _chain(error))):
            return None
        raise InputError(f"the search's storage can't be read: {_root(error)}") from error
    finally:
        if storage is not None:
            close_storage(storage)
    # The result is written before the state: a driver or a power line that was cut in between lost nothing.
    return {trial.number for trial in found if trial.state.is_finished() or RESULT in trial.user_attrs}


def _is_damage(error: BaseException) -> bool:
    """Whether a file's content is at fault: not a full or read-only disk, a lock, or another version's tables."""
    if isinstance(error, sqlite3.Error):
        return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
    return isinstance(error, ValueError | KeyError) and not isinstance(error, InputError)  # a journal's broken line


def is_file(url: str | None) -> bool:
    """Whether the study lies in a file inside the search's directory."""
    return url in (None, "journal")


def put_aside(url: str | None, directory: Path) -> Path:
    """Renames the study's file, so that a new one can be begun; its new name, beside it."""
    path = directory / (JOURNAL_FILE if url == "journal" else DATABASE_FILE)
    aside = next(
        place for n in itertools.count(1) if not (place := path.with_name(f"{path.name}.damaged-{n}")).exists()
    )
    for ending in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{ending}", f"{aside}{ending}")
    return aside


def study_name(url: str | None, directory: Path) -> str:
    """The study's name: a storage inside the search's directory has but one; a database is shared by many searches."""
    if is_file(url):
        return OWN_STUDY
    kept = directory / NAME_FILE
    if not kept.exists():  # once: a search that is moved keeps its study
        place = str(directory.resolve())
        write_text(kept, f"{directory.parent.name}-{hashlib.sha256(place.encode()).hexdigest()[:12]}\n")
    return kept.read_text(encoding="utf-8").strip()


def delete_study(url: str | None, directory: Path) -> None:
    """Removes a search's study from a shared database, so that it can be begun anew."""
    name = study_name(url, directory)
    if name != OWN_STUDY and name in optuna.get_all_study_names(open_storage(url, directory)):
        optuna.delete_study(study_name=name, storage=open_storage(url, directory))


def cut_torn_line(path: Path) -> None:
    """Cuts a journal back to its last whole line: a half-written one would swallow the next and ruin the file."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with open(path, "r+b") as file:
            file.truncate(whole)


def patiently(action: Callable[[], T], patience: float = PATIENCE) -> T:
    """Does a write; where the storage is locked or away, again and again for `patience` seconds.

    `action` must bear to be done twice.  InputError when the storage stays away, or at once where waiting can't help,
    as with a full disk.
    """
    wait, end, told = 0.25, time.monotonic() + patience, False
    while True:
        try:
            return action()
        except Exception as error:
            if not _may_pass(error):
                if not _is_storage(error):
                    raise
                raise InputError(f"the search's storage can't be written: {_root(error)}; {_KEPT}") from error
            if time.monotonic() + wait > end:
                raise InputError(
                    f"the search's storage stayed away for {patience:.0f} s: {_root(error)}; {_KEPT}"
                ) from error
            if not told:
                logging.getLogger("stepfront").warning(
                    "the search's storage is locked or away (%s); waiting up to %.0f s", _root(error), patience
                )
                told = True
            time.sleep(wait)
            wait = min(5.0, 2 * wait)


_KEPT = "every result that was told is kept, and `stepfront resume` goes on from there"
_PASSING = (
    "locked",
    "busy",
    "connection",
    "could not connect",
    "starting up",
    "shutting down",
    "timeout",
    "timed out",
    "recovery mode",
)


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _is_storage(error: BaseException) -> bool:
    modules = {type(one).__module__.partition(".")[0] for one in _chain(error)}
    return bool(modules & {"sqlalchemy", "sqlite3", "psycopg"}) or any(
        isinstance(one, OSError) for one in _chain(error)
    )


def _may_pass(error: BaseException) -> bool:
    if not _is_storage(error):
        return False
    said = " ".join(str(one).lower() for one in _chain(error))
    return any(word in said for word in _PASSING)


def _root(error: BaseException) -> str:
    return _first_line(_chain(error)[-1])


def _first_line(error: BaseException) -> str:
    return next(iter(redacted(error).strip().splitlines()), type(error).__name__)
