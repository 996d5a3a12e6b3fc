"""Delete a run, a search or a supernet: its folder, its study in a shared database and, if asked, its MLflow runs."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stepfront.addresses import is_uri, shown
from stepfront.errors import InputError
from stepfront.search.mlflow_runs.delete_runs import delete_runs
from stepfront.search.mlflow_runs.written import WrittenRun, WrittenSearch, WrittenTraining
from stepfront.search.records.run_directory import resume_settings, tracking_of_supernet
from stepfront.search.records.run_list import bytes_in
from stepfront.search.storage.lock import directory_lock
from stepfront.search.study.optuna_storage import (
    DATABASE_FILE,
    JOURNAL_FILE,
    NAME_FILE,
    delete_study,
    foreign_study,
    is_file,
)
from stepfront.tables.schema import FACTS_FILE, SETTINGS_FILE, TRAINING
from stepfront.trainers.networks.card import CARD_FILE

CHECKPOINT = "checkpoint.safetensors"
SIGNS = {
    "search": (FACTS_FILE, DATABASE_FILE, JOURNAL_FILE, NAME_FILE),
    "supernet": (CARD_FILE, CHECKPOINT, TRAINING),
}
"""Files of which a search's or a supernet's directory has one, beside its settings."""
BEGUN = {"lock", ".lock.holder", SETTINGS_FILE, "mlflow.json", "checksums.json", ".checksums.json.lock"}
"""All that a search or a training has written when it ends at its beginning, such as for data that are missing."""


@dataclass(frozen=True)
class Part:
    """A search or a supernet that is to be deleted."""

    kind: Literal["search", "supernet"]
    directory: Path
    bytes: int
    study: str = ""
    """Address of the database that holds its study; empty where the study is a file in the directory."""
    kept: str = ""
    """Why the study stays in that database; empty where it is the part's own and is deleted."""


def find_parts(place: str) -> list[Part]:
    """Return what a run, or a search or supernet, consists of; the search first.

    Raises InputError where there is neither, and for a URI.
    """
    if is_uri(place):
        raise InputError(
            f"{shown(place)} is a URI, and stepfront deletes local folders alone; delete it with the store's own "
            "tools, while no driver works there"
        )
    path = Path(os.path.abspath(place))  # "." has no name to move it aside by
    found = [part for kind in ("search", "supernet") for part in (_part(kind, path), _part(kind, path / kind)) if part]
    if not found:
        raise InputError(
            f"{place} is not a run, search or supernet of stepfront, so nothing was deleted; `stepfront list` shows "
            "the runs of a folder"
        )
    return found


def _part(kind: Literal["search", "supernet"], directory: Path) -> Part | None:
    if not directory.is_dir() or directory.is_symlink():
        return None
    names = {*os.listdir(directory)}
    # `search --fresh` leaves the name of a study that it has deleted.
    begun = BEGUN if SETTINGS_FILE in names else BEGUN | {NAME_FILE}
    if directory.name == kind and (directory / "lock").is_file() and names <= begun:
        return Part(kind, directory, bytes_in(directory))
    if not any((directory / sign).is_file() for sign in SIGNS[kind]):
        return None
    if kind == "supernet":
        return Part(kind, directory, bytes_in(directory))
    ours = (directory / FACTS_FILE).is_file() or (directory / SETTINGS_FILE).is_file()
    database = _database(directory)
    return Part(kind, directory, bytes_in(directory), database, foreign_study(database, directory)) if ours else None


def _database(search: Path) -> str:
    """Return the database that a search's study is in; empty for a file, and where the settings can't be read."""
    with contextlib.suppress(InputError):
        url = resume_settings(search, checked=False).storage
        return "" if is_file(url) else str(url)
    return ""


def delete_parts(parts: Sequence[Part], mlflow: bool) -> int:
    """Delete the parts, and the run's folder where nothing else is in it; return how many MLflow runs were deleted.

    Raises InputError, before any folder is deleted, when a driver works in one of them, or when the database of a
    study or MLflow can't be reached.
    """
    with contextlib.ExitStack() as held:
        for part in parts:
            held.enter_context(directory_lock(part.directory))
        count = sum(_delete_from_mlflow(part) for part in parts) if mlflow else 0
        for part in parts:
            if part.study and not part.kept:
                delete_study(part.study, part.directory)
        for part in parts:
            _delete_folder(part.directory)
    for run in {part.directory.absolute().parent for part in parts}:
        with contextlib.suppress(OSError):  # it holds something else
            run.rmdir()
    return count


def _delete_from_mlflow(part: Part) -> int:
    uri: str | None
    note: WrittenRun
    if part.kind == "search":
        uri, note = resume_settings(part.directory, checked=False).tracking.uri, WrittenSearch.read(part.directory)
    else:
        uri, note = tracking_of_supernet(part.directory), WrittenTraining.read(part.directory)
    return 0 if uri is None or not note.run_id else delete_runs(uri, note.experiment_id, note.run_id)


def _delete_folder(directory: Path) -> None:
    """Delete a folder that disappears at once: under another name first, which the next call deletes if it is left."""
    aside = directory.with_name(f".{directory.name}.deleting")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(directory, aside)
    shutil.rmtree(aside)
