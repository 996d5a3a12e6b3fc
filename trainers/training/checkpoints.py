"""What a checkpoint belongs to, and where it is kept beside the training's own directory: any file system that pyarrow
knows, by its URI."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
from pyarrow import fs
from safetensors import SafetensorError, safe_open

from stepfront.errors import InputError
from stepfront.files import write_atomically
from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.data import ImageData
from stepfront.trainers.networks.supernet import settings_json

NOT_IN_THE_WEIGHTS = (
    *("checkpoint_every", "checkpoints", "samples_every", "held_out_images"),
    *("workers", "restarts", "accumulate", "device"),
)
"""Settings of a training that may differ when it goes on: they say where and how, not what is computed."""

_WHOLE_OR_NOT_AT_ALL = ("s3", "gcs", "abfs")
"""Stores in which a file is there once it is whole, and renaming means to copy."""


def training_key(settings: TrainerSettings, data: ImageData) -> str:
    """A digest of all that decides the weights; where and by how many they are computed is not among it."""
    content = settings_json(settings)
    decisive = {group: dict(content[group]) for group in ("data", "network", "diffusion", "training")}
    for group, keys in (("data", ("path", "memory_mb", "cache")), ("training", NOT_IN_THE_WEIGHTS)):
        for key in keys:
            del decisive[group][key]
    if settings.network.classes is None:
        del decisive["training"]["drop_labels"]
    return hashlib.sha256(json.dumps([decisive, data.fingerprint], sort_keys=True).encode()).hexdigest()


class Store:
    """The checkpoint of one training under a URI such as s3://BUCKET/FOLDER or file:///FOLDER.

    `key` names the training there: all that decides its weights, so that trainings never meet each other's files.
    """

    def __init__(self, uri: str, key: str) -> None:
        """InputError where pyarrow has no file system for the URI."""
        try:
            self._files, folder = fs.FileSystem.from_uri(uri)
        except (pa.ArrowException, ValueError, OSError, ImportError, TypeError) as error:
            line = next(iter(str(error).splitlines()), type(error).__name__)
            raise InputError(
                f"training.checkpoints can't be used ({line}); give a URI such as s3://BUCKET/FOLDER or file:///FOLDER"
            ) from None
        self._folder = f"{folder.rstrip('/')}/{key}"

    def upload(self, file: Path) -> None:
        """Puts the file in the place of the one there.  InputError when the store can't be written."""
        place = f"{self._folder}/{file.name}"
        in_place = self._files.type_name in _WHOLE_OR_NOT_AT_ALL
        beside = place if in_place else f"{self._folder}/.{file.name}.part"
        try:
            if not in_place:
                self._files.create_dir(self._folder)
            fs.copy_files(str(file), beside, fs.LocalFileSystem(), self._files)
            if not in_place:
                self._files.move(beside, place)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"can't write the checkpoint to training.checkpoints: {_line(error)}") from None

    def fetch(self, file: Path) -> None:
        """Brings the stored file, where it is of a later step than the one at `file`, or there is none."""
        place = f"{self._folder}/{file.name}"
        arrived = file.with_name(f".{file.name}.stored")
        try:
            if self._files.get_file_info(place).type != fs.FileType.File:
                return
            write_atomically(arrived, lambda path: fs.copy_files(place, str(path), self._files, fs.LocalFileSystem()))
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"can't read training.checkpoints: {_line(error)}") from None
        if step_of(arrived) > step_of(file):
            arrived.replace(file)
        else:
            arrived.unlink()

    def delete(self) -> None:
        """Forgets the training."""
        try:
            if self._files.get_file_info(self._folder).type == fs.FileType.Directory:
                self._files.delete_dir(self._folder)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"can't delete the checkpoint at training.checkpoints: {_line(error)}") from None


def step_of(file: Path) -> int:
    """The step of a checkpoint; -1 where there is none, or none that is whole."""
    try:
        with safe_open(file, framework="pt") as content:
            return int((content.metadata() or {}).get("step", -1))
    except (SafetensorError, OSError, ValueError):
        return -1


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
