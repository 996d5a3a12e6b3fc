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
from stepfront.search.mlflow_runs.copies import original_of_runs
from stepfront.search.mlflow_runs.delete_runs import delete_runs
from stepfront.search.mlflow_runs.written import NOTE_FILE, WrittenRun, WrittenSearch, WrittenTraining
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
    runs_of: str = ""
    """The folder whose MLflow runs those of this copy are, which stay; empty where they are its own."""


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
        return Part(kind, directory, bytes_in(directory), runs_of=_runs_of(kind, directory))
    if not any((directory / sign).is_file() for sign in SIGNS[kind]):
        return None
    runs_of = _runs_of(kind, directory)
    if kind == "supernet":
        return Part(kind, directory, bytes_in(directory), runs_of=runs_of)
    ours = (directory / FACTS_FILE).is_file() or (directory / SETTINGS_FILE).is_file()
    database = _database(directory)
    kept = foreign_study(database, directory) if ours else ""
    return Part(kind, directory, bytes_in(directory), database, kept, runs_of) if ours else None


def _runs_of(kind: Literal["search", "supernet"], directory: Path) -> str:
    with contextlib.suppress(InputError):
        note = WrittenSearch if kind == "search" else WrittenTraining
        return str(original_of_runs(directory, note, _tracking(kind, directory)) or "")
    return ""


def _tracking(kind: Literal["search", "supernet"], directory: Path) -> str | None:
    """Return the address of MLflow in the settings of a search or a supernet."""
    if kind == "supernet":
        return tracking_of_supernet(directory)
    return resume_settings(directory, checked=False).tracking.uri


def _database(search: Path) -> str:
    """Return the database that a search's study is in; empty for a file, and where the settings can't be read."""
    with contextlib.suppress(InputError):
        url = resume_settings(search, checked=False).storage
        return "" if is_file(url) else str(url)
    return ""


def delete_parts(parts: Sequence[Part], mlflow: bool) -> int:
    """Delete the parts, and the run's folder where nothing else is in it; return how many MLflow runs were deleted.

    Raises InputError, before any folder is deleted, when a driver works in one of them, when the database of a study
    or MLflow can't be reached, or when it is not known which run of MLflow a part has.
    """
    with contextlib.ExitStack() as held:
        for part in parts:
            held.enter_context(directory_lock(part.directory))
        known = [found for part in parts if (found := _runs_in_mlflow(part))] if mlflow else []
        count = sum(delete_runs(uri, note.experiment_id, note.run_id) for uri, note in known)
        for part in parts:
            if part.study and not part.kept:
                delete_study(part.study, part.directory)
        for part in parts:
            _delete_folder(part.directory)
    for run in {part.directory.absolute().parent for part in parts}:
        with contextlib.suppress(OSError):  # it holds something else
            run.rmdir()
    return count


def _runs_in_mlflow(part: Part) -> tuple[str, WrittenRun] | None:
    """Return the store and the run of a part; None where it has none, or that of the folder it was copied from."""
    if part.runs_of:
        return None
    uri = _tracking(part.kind, part.directory)
    if uri is None:
        return None
    note: WrittenRun
    try:
        note = (WrittenSearch if part.kind == "search" else WrittenTraining).read_strictly(part.directory)
    except InputError:
        made = part.directory / (FACTS_FILE if part.kind == "search" else TRAINING)
        if (part.directory / NOTE_FILE).exists() or made.exists():
            again = f"write it again: stepfront sync {part.directory}; or delete" if part.kind == "search" else "delete"
            raise InputError(
                f"{part.directory / NOTE_FILE} is missing or damaged, so its runs in MLflow are not known, and nothing "
                f"was deleted; {again} without --mlflow"
            ) from None
        return None
    return (uri, note) if note.run_id else None


def _delete_folder(directory: Path) -> None:
    """Delete a folder that disappears at once: under another name first, which the next call deletes if it is left."""
    aside = directory.with_name(f".{directory.name}.deleting")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(directory, aside)
    shutil.rmtree(aside)
