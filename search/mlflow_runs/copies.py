"""Give a folder that was copied by hand MLflow runs of its own, and leave its original the runs that both note."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path
from typing import TypeVar

from stepfront.addresses import is_uri
from stepfront.checksums import is_in_copy_of_uri
from stepfront.errors import InputError
from stepfront.search.config import RunSettings, load_settings
from stepfront.search.mlflow_runs.client import tracking_uri
from stepfront.search.mlflow_runs.written import WrittenRun, WrittenSearch, WrittenTraining
from stepfront.tables.facts import read_facts, search_id_of
from stepfront.tables.schema import SETTINGS_FILE

Note = TypeVar("Note", bound=WrittenRun)


def original_of_runs(directory: Path, kind: type[WrittenRun], uri: str | None) -> Path | None:
    """Return the folder that `directory` was copied from, and whose runs in the store `uri` its note names.

    `kind` is the note of a search or a training.  None for a folder that was made here or has moved, that has runs of
    its own, whose original writes to another store, and for the local copy of a run at a URI.
    """
    if uri is None:
        return None
    try:
        settings = load_settings(directory / SETTINGS_FILE)
    except InputError:  # missing or damaged
        return None
    if tracking_uri(settings.tracking.uri) != tracking_uri(uri) or is_in_copy_of_uri(directory / SETTINGS_FILE):
        return None
    place = _written_place(settings, kind)
    if place is None or not place.is_dir() or place.samefile(directory):
        return None
    ours, theirs = kind.read(directory), kind.read(place)
    same_run = ours.run_id and ours.run_id == theirs.run_id
    return place if same_run or _identity(directory, ours) in {_identity(place, theirs)} - {""} else None


def read_own_note(directory: Path, kind: type[Note], uri: str | None) -> Note:
    """Return the note in `directory`; for a copy whose note is its original's, one that begins runs of its own."""
    if original_of_runs(directory, kind, uri) is None:
        return kind.read(directory)
    note = kind()
    if isinstance(note, WrittenSearch):
        note.own_id = uuid.uuid4().hex[:12]
    return note


def keep_own_note(directory: Path, kind: type[WrittenRun], uri: str | None) -> None:
    """Save the own note of a copy before its settings are replaced, by which the copy is recognised."""
    if original_of_runs(directory, kind, uri) is not None:
        read_own_note(directory, kind, uri).save(directory)


def _written_place(settings: RunSettings, kind: type[WrittenRun]) -> Path | None:
    place = settings.supernet_place if issubclass(kind, WrittenTraining) else settings.directory
    if is_uri(place):
        return None
    found = settings.supernet_directory if issubclass(kind, WrittenTraining) else settings.search_directory
    return found.absolute()


def _identity(directory: Path, note: WrittenRun) -> str:
    """Return what the run is found by in the store; empty where that is not known."""
    if isinstance(note, WrittenTraining):
        return note.training_id
    with contextlib.suppress(InputError):
        own = note.own_id if isinstance(note, WrittenSearch) else ""
        return own or search_id_of(read_facts(directory))
    return ""
