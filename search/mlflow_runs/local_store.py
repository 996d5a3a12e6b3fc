"""Keep a tracking store in a SQLite file: create it completely or not at all, and let it follow a move."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from pathlib import Path

from stepfront.beside import part_of, remove_left_parts
from stepfront.search.mlflow_runs.open_client import open_client, set_environment
from stepfront.sqlite_files import client_url

ARTIFACTS = "mlartifacts"
"""Folder of artifacts, beside the file."""

_CREATING = threading.Lock()
"""One thread of a process makes a database at a time: they would write to the same file beside."""

_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)
"""Tables and columns in which MLflow keeps absolute addresses of artifacts."""


def create_store(file: Path) -> None:
    """Create the database of a tracking store, unless there is one.

    MLflow makes a new one in a hundred steps.  They run on a file beside, so that a full disk leaves none of them.
    What a killed process left of these is deleted.
    """
    with _CREATING:
        remove_left_parts(file)
        if not file.exists():
            _create_beside(part_of(file), file)


def _create_beside(beside: Path, file: Path) -> None:
    set_environment()
    try:
        client = open_client(client_url(beside))
        client.search_experiments(max_results=1)
        client._tracking_client.store.engine.dispose()
        with contextlib.suppress(FileExistsError):  # another process made it meanwhile
            os.link(beside, file)
    finally:
        for ending in ("", "-journal", "-wal", "-shm"):
            Path(f"{beside}{ending}").unlink(missing_ok=True)


def mend_moved_artifacts(file: Path) -> None:
    """Let the store's artifacts be those beside the file, where file and artifacts were moved or copied together.

    MLflow keeps their absolute addresses.  Those of a folder that is gone, or that belongs to the store this one is a
    copy of, are changed; nothing else is.
    """
    here = file.parent / ARTIFACTS
    if not here.is_dir():
        return
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(file, timeout=60)) as store:
        known = {name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        with store:
            for table, column in _PLACES:
                if table in known:
                    _mend(store, table, column, file, here.as_uri())


def _mend(store: sqlite3.Connection, table: str, column: str, file: Path, here: str) -> None:
    ending = f"/{ARTIFACTS}"
    found = store.execute(f"SELECT DISTINCT {column} FROM {table} WHERE {column} LIKE 'file://%{ending}%'")
    old = {str(place).partition(ending)[0] + ending for (place,) in found}
    for root in old - {here}:
        folder = _path_of(root)
        if not folder.exists() or (folder.parent / file.name).exists():
            store.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR {column} LIKE ? || '/%'",
                (here, len(root) + 1, root, root),
            )


def _path_of(uri: str) -> Path:
    from urllib.parse import unquote, urlparse

    return Path(unquote(urlparse(uri).path))
