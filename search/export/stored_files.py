"""Store a folder as artifacts of a run, completely or not at all."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from stepfront.errors import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient


def store_folder(client: MlflowClient, run_id: str, folder: Path, place: str) -> None:
    """Store the files of `folder` below `place`, unless they are all there.

    What a full disk or a server cuts short is deleted again.  Raises InputError when the store then lacks a file, and
    MLflow's own errors.
    """
    if is_stored(client, run_id, folder, place):
        return
    try:
        client.log_artifacts(run_id, str(folder), place)
        if not is_stored(client, run_id, folder, place):
            raise InputError(f"the artifacts of run {run_id} are incomplete below {place}; is the disk full?")
    except BaseException as error:
        _delete(client, run_id, place)
        if isinstance(error, shutil.Error):  # a list of what could not be copied
            raise InputError(f"can't store {place}: {str(error.args[0][0][-1])[:200]}; nothing of it is kept") from None
        raise


def is_stored(client: MlflowClient, run_id: str, folder: Path, place: str) -> bool:
    """Return whether the store has every file of `folder` below `place`, with its size."""
    wanted = {f"{place}/{path.relative_to(folder).as_posix()}": path.stat().st_size for path in _files(folder)}
    found: dict[str, int | None] = {}
    places = [place]
    while places:
        for one in client.list_artifacts(run_id, places.pop()):
            if one.is_dir:
                places.append(one.path)
            else:
                found[one.path] = one.file_size
    return all(name in found and found[name] in (None, size) for name, size in wanted.items())


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _delete(client: MlflowClient, run_id: str, place: str) -> None:
    """Delete artifacts, where the store allows it."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with contextlib.suppress(Exception):  # each kind of store raises errors of its own
        get_artifact_repository(client.get_run(run_id).info.artifact_uri).delete_artifacts(place)
