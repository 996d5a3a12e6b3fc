"""Open the Optuna storage of a search: SQLite or a journal in its directory, or a shared database."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from sqlalchemy import event

from stepfront.addresses import is_uri, redacted, resolved, shown
from stepfront.checksums import forget, is_in_copy_of_uri, record_as_it_is
from stepfront.errors import InputError, first_line
from stepfront.files import free_name, write_text
from stepfront.search.algorithm.trials import RESULT
from stepfront.search.records.run_directory import written_settings
from stepfront.search.study.one_writer_storage import OneWriterStorage
from stepfront.search.study.outages import chain, root_cause
from stepfront.sqlite_files import client_url, sqlite_file, sqlite_url
from stepfront.tables.facts import read_facts, search_id_of

OWN_STUDY = "stepfront"
ID_ATTRIBUTE = "search_id"
"""The study's attribute that holds the search's id, which is in search.json as well."""

JOURNAL_FILE, DATABASE_FILE, NAME_FILE = "study.journal", "study.db", "study.name"


def open_storage(url: str | None, directory: Path) -> BaseStorage:
    """Return the storage that `url` names; its `${NAME}` are environment variables.

    None is SQLite in `directory`, `journal` a file there, anything else the URL of a database.  Raises InputError when
    the storage can't be opened.
    """
    directory.mkdir(parents=True, exist_ok=True)
    named = url
    url = resolved(url) if url else url
    try:
        if url == "journal":
            path = directory / JOURNAL_FILE
            # The directory's own lock is held, so a killed driver left the lock beside the journal.
            path.with_name(path.name + ".lock").unlink(missing_ok=True)
            cut_torn_line(path)
            return JournalStorage(JournalFileBackend(str(path)))
        if url is None:
            path = directory / DATABASE_FILE
            with sqlite3.connect(path) as connection:
                # Write-ahead logging: one sync per commit, not three, and readers never wait.  The file remembers it.
                connection.execute("PRAGMA journal_mode=WAL")
            connection.close()
            url = sqlite_url(path)
        if (file := sqlite_file(url)) is not None:
            url = client_url(file)
        if url.startswith("postgresql://"):  # SQLAlchemy's default driver differs between versions
            url = "postgresql+psycopg://" + url.removeprefix("postgresql://")
        options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
        storage = OneWriterStorage(url, engine_kwargs=options)
        if named is None:
            _sync_on_demand(storage)
        return storage
    except ImportError:
        raise InputError(
            f"the driver of the storage {shown(named or '')} is not installed; for PostgreSQL: pip install "
            "'psycopg[binary]'"
        ) from None
    except Exception as error:  # SQLAlchemy, its drivers and sqlite3 each have errors of their own
        place = shown(named) if named else str(directory / DATABASE_FILE)
        raise InputError(f"the search's storage {place} can't be opened: {redacted(first_line(error))}") from error


def _sync_on_demand(storage: RDBStorage) -> None:
    """Let commits survive a killed process at once, and a power failure from the next `sync_storage` on.

    A sync per commit, of which a trial has three, takes the driver longer than the commit.
    """
    event.listen(storage.engine, "connect", lambda connection, record: connection.execute("PRAGMA synchronous=NORMAL"))
    storage.engine.dispose()  # the connections so far


def sync_storage(storage: BaseStorage) -> None:
    """Write to the disk what was committed to a search's own SQLite; other storages do so with each commit."""
    if isinstance(storage, RDBStorage) and storage.engine.name == "sqlite":
        with contextlib.suppress(FileNotFoundError), open(f"{storage.engine.url.database}-wal", "rb+") as log:
            os.fsync(log.fileno())


def close_storage(storage: BaseStorage) -> None:
    """Close the connections of a storage.

    SQLite then merges its write-ahead log, so that its one file may be copied.
    """
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


@contextlib.contextmanager
def opened_storage(url: str | None, directory: Path) -> Iterator[BaseStorage]:
    """Open a storage, as `open_storage`, for the block, and close its connections afterwards."""
    storage = open_storage(url, directory)
    try:
        yield storage
    finally:
        close_storage(storage)


def read_study(url: str | None, directory: Path) -> tuple[dict[str, Any], list[FrozenTrial]]:
    """Return the attributes of a search's study, and its trials by number.  Raises InputError when there is none."""
    with opened_storage(url, directory) as storage:
        try:
            study = storage.get_study_id_from_name(study_name(url, directory))
            trials = storage.get_all_trials(study, deepcopy=False)
            return storage.get_study_user_attrs(study), sorted(trials, key=lambda trial: trial.number)
        except KeyError:
            raise InputError(
                f"there is no study of the search in {directory}: the search never began, or the settings name "
                "another storage"
            ) from None


def study_attributes(url: str | None, directory: Path) -> dict[str, Any]:
    """Return the attributes of a search's study; none where there is no study."""
    with opened_storage(url, directory) as storage:
        try:
            return storage.get_study_user_attrs(storage.get_study_id_from_name(study_name(url, directory)))
        except KeyError:
            return {}


def finished_numbers(url: str | None, directory: Path) -> set[int] | None:
    """Return the numbers of the trials that have a result; None when the study's file is damaged.

    Raises InputError when a database does not answer.
    """
    try:
        with opened_storage(url, directory) as storage:
            found = storage.get_all_trials(storage.get_study_id_from_name(study_name(url, directory)), deepcopy=False)
    except KeyError:
        return set()
    except Exception as error:  # a damaged file may raise any error of sqlite3, SQLAlchemy or json
        if is_file(url) and any(map(_is_damage, chain(error))):
            return None
        raise InputError(f"the search's storage can't be read: {root_cause(error)}") from error
    # The result is written before the state, so a crash between the two lost nothing.
    return {trial.number for trial in found if trial.state.is_finished() or RESULT in trial.user_attrs}


def _is_damage(error: BaseException) -> bool:
    """Return whether a file's content is at fault.

    A full or read-only disk, a lock, and tables of another version of Optuna are not damage.
    """
    if isinstance(error, sqlite3.Error):
        return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
    return isinstance(error, ValueError | KeyError) and not isinstance(error, InputError)  # a journal's broken line


def is_file(url: str | None) -> bool:
    """Return whether the study is a file inside the search's directory."""
    return url in (None, "journal")


@contextlib.contextmanager
def recorded_study(url: str | None, directory: Path) -> Iterator[None]:
    """Take the study's file out of the record of checksums for the block, which changes it, and record it afterwards.

    A driver that is killed leaves the file unrecorded.
    """
    path = directory / (JOURNAL_FILE if url == "journal" else DATABASE_FILE)
    if is_file(url):
        forget(path)
    yield
    if is_file(url) and path.is_file():
        record_as_it_is(path)


def put_aside(url: str | None, directory: Path) -> Path:
    """Rename the study's file, so that a new study can begin; return its new path, in the same directory."""
    path = directory / (JOURNAL_FILE if url == "journal" else DATABASE_FILE)
    forget(path)
    aside = free_name(path.with_name(f"{path.name}.damaged"))
    for ending in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{ending}", f"{aside}{ending}")
    return aside


def study_name(url: str | None, directory: Path) -> str:
    """Return the study's name: constant in a search's own file, unique in a database shared by many searches.

    The unique name is written to the directory before the study is made, so a moved search keeps its study, and a new
    search at its old place gets another.  One that was copied by hand gets a name of its own, or it would continue and
    delete the study of its original.
    """
    if is_file(url):
        return OWN_STUDY
    file = directory / NAME_FILE
    if not file.exists():
        write_text(file, f"{_earlier_name(url, directory) or _new_name(directory)}\n")
    elif original_of(url, directory) is not None:
        write_text(file, f"{_new_name(directory)}\n")
    return _written_name(directory)


def _new_name(directory: Path) -> str:
    """Return a name that no other study has: random, because another search may follow at a place."""
    return f"{directory.parent.name}-{secrets.token_hex(8)}"


def _earlier_name(url: str | None, directory: Path) -> str:
    """Return the name that an earlier version gave to the study of a search at this place; empty where it has none.

    A search that has moved away may own the study of that name, so it must have the id in this search's facts.
    """
    try:
        identity = search_id_of(read_facts(directory))
    except InputError:  # a new search, or damaged facts
        return ""
    name = f"{directory.parent.name}-{hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:12]}"
    with opened_storage(url, directory) as storage:
        try:
            found = storage.get_study_user_attrs(storage.get_study_id_from_name(name)).get(ID_ATTRIBUTE)
        except KeyError:  # no study has that name
            return ""
    return name if found == identity else ""


def _written_name(directory: Path) -> str:
    return (directory / NAME_FILE).read_text(encoding="utf-8").strip()


def original_of(url: str | None, directory: Path) -> Path | None:
    """Return the search that `directory` was copied from by hand, and whose study in the database `url` it names.

    None for a search that was made here or has moved, for a copy whose database is another, and for the local copy of
    a run at a URI, which works on the run's own study.
    """
    if not (directory / NAME_FILE).is_file():
        return None
    written = written_settings(directory)
    if (
        written is None
        or not _is_one_database(written.storage, url)
        or is_uri(written.directory)
        or _belongs_to_uri(directory)
    ):
        return None
    place = written.search_directory.absolute()
    if not (place / NAME_FILE).is_file() or place.samefile(directory):
        return None
    return place if _written_name(place) == _written_name(directory) else None


def foreign_study(url: str | None, directory: Path) -> str:
    """Return why a search's study in a database must outlive it: another folder may own it; empty where none does."""
    if not url or is_file(url) or not (directory / NAME_FILE).is_file():
        return ""
    if _belongs_to_uri(directory):
        return "it belongs to the run at a URI that this folder is a copy of"
    if (original := original_of(url, directory)) is not None:
        return f"it belongs to {original}, which this folder is a copy of"
    written = written_settings(directory)
    if written is None or not _is_one_database(written.storage, url):
        return ""
    if is_uri(written.directory):
        return f"it belongs to the run at {shown(written.run_place)}"
    place = written.search_directory
    # On another machine, the original's place is missing as it is after a move.
    here = place.exists() and place.samefile(directory)
    return "" if here else f"this folder may be a copy of {place} on another machine"


def _belongs_to_uri(directory: Path) -> bool:
    return is_in_copy_of_uri(directory / NAME_FILE)


def _is_one_database(one: str | None, other: str | None) -> bool:
    return one == other or (sqlite_file(one) is not None and sqlite_file(one) == sqlite_file(other))


def delete_study(url: str | None, directory: Path) -> None:
    """Delete a search's study from a shared database, so that a new one of the same name can begin."""
    name = study_name(url, directory)
    if name == OWN_STUDY:
        return
    with opened_storage(url, directory) as storage:
        if name in optuna.get_all_study_names(storage):
            optuna.delete_study(study_name=name, storage=storage)


def cut_torn_line(path: Path) -> None:
    """Truncate a journal after its last complete line; a partial line would corrupt the next one written."""
    if not path.exists():
        return
    content = path.read_bytes()
    complete = content.rfind(b"\n") + 1
    if complete < len(content):
        with open(path, "r+b") as file:
            file.truncate(complete)
