"""Store a folder as artifacts of a run or of a logged model, completely or not at all."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from stepfront.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow import MlflowClient
    from mlflow.entities import FileInfo


POINT = "artifacts/point"
"""Folder of the exported point in an MLflow model; the files beside it depend on the versions of packages."""


class Artifacts(Protocol):
    """Where MLflow keeps files: below a run, or below a logged model."""

    name: str

    def list(self, place: str) -> Sequence[FileInfo]:
        """Return the files and folders in `place`."""

    def put(self, folder: Path, place: str) -> None:
        """Copy the files of `folder` to `place`."""

    def uri(self) -> str:
        """Return the address of the artifacts."""


class RunArtifacts:
    """The artifacts of a run."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self._run_id, self.name = client, run_id, f"run {run_id}"

    def list(self, place: str) -> Sequence[FileInfo]:
        """Return the files and folders in `place`."""
        return self._client.list_artifacts(self._run_id, place)

    def put(self, folder: Path, place: str) -> None:
        """Copy the files of `folder` to `place`."""
        self._client.log_artifacts(self._run_id, str(folder), place)

    def uri(self) -> str:
        """Return the address of the artifacts."""
        return str(self._client.get_run(self._run_id).info.artifact_uri)


class ModelArtifacts:
    """The artifacts of a logged model; the place "" is their root."""

    def __init__(self, client: MlflowClient, model_id: str) -> None:
        self._client, self._model_id, self.name = client, model_id, f"model {model_id}"

    def list(self, place: str) -> Sequence[FileInfo]:
        """Return the files and folders in `place`."""
        return self._client.list_logged_model_artifacts(self._model_id, place or None)

    def put(self, folder: Path, place: str) -> None:
        """Copy the files of `folder` to `place`."""
        self._client.log_model_artifacts(self._model_id, str(folder), place or None)

    def uri(self) -> str:
        """Return the address of the artifacts."""
        return str(self._client.get_logged_model(self._model_id).artifact_location)


def store_folder(artifacts: Artifacts, folder: Path, place: str) -> None:
    """Store the files of `folder` below `place`, unless they are all there.

    What a full disk or a server cuts short is deleted again.  Raises InputError when the store then lacks a file, and
    MLflow's own errors.
    """
    if is_stored(artifacts, folder, place):
        return
    try:
        artifacts.put(folder, place)
        if not is_stored(artifacts, folder, place):
            where = f" below {place}" if place else ""
            raise InputError(f"the artifacts of {artifacts.name} are incomplete{where}; is the disk full?")
    except BaseException as error:
        _delete(artifacts, place)
        if isinstance(error, shutil.Error):  # a list of what could not be copied
            what = place or artifacts.name
            raise InputError(f"can't store {what}: {str(error.args[0][0][-1])[:200]}; nothing of it is kept") from None
        raise


def mend_model(artifacts: Artifacts, folder: Path, place: str) -> None:
    """Store those files of an MLflow model that are missing below `place`, and those of its point with another size.

    All others stay, and nothing is deleted: versions of registered models share them.  Raises InputError when the store
    then lacks a file, and MLflow's own errors.
    """
    there = _sizes(artifacts, place)
    for path in _files(folder):
        name = _join(place, path.relative_to(folder).as_posix())
        own = path.is_relative_to(folder / POINT)
        if name in there and (not own or there[name] in (None, path.stat().st_size)):
            path.unlink()
    artifacts.put(folder, place)
    if not is_stored(artifacts, folder, place):
        raise InputError(f"the artifacts of {artifacts.name} are incomplete; is the disk full?")


def is_stored(artifacts: Artifacts, folder: Path, place: str) -> bool:
    """Return whether the store has every file of `folder` below `place`, with its size."""
    wanted = {_join(place, path.relative_to(folder).as_posix()): path.stat().st_size for path in _files(folder)}
    found = _sizes(artifacts, place)
    return all(name in found and found[name] in (None, size) for name, size in wanted.items())


def _sizes(artifacts: Artifacts, place: str) -> dict[str, int | None]:
    """Return the files below `place` with their sizes, which some stores do not tell."""
    found: dict[str, int | None] = {}
    places = [place]
    while places:
        for one in artifacts.list(places.pop()):
            if one.is_dir:
                places.append(one.path)
            else:
                found[one.path] = one.file_size
    return found


def _join(place: str, name: str) -> str:
    return f"{place}/{name}" if place else name


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _delete(artifacts: Artifacts, place: str) -> None:
    """Delete artifacts, where the store allows it."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with contextlib.suppress(Exception):  # each kind of store raises errors of its own
        get_artifact_repository(artifacts.uri()).delete_artifacts(place)
