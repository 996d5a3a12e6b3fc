"""Name what a checkpoint belongs to, and keep a copy of it at a URI, apart from the training's own directory."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from stepfront.addresses import joined
from stepfront.errors import InputError
from stepfront.file_store import FileStore
from stepfront.files import write_atomically
from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.data import ImageData
from stepfront.trainers.networks.supernet import settings_json

NOT_IN_THE_WEIGHTS = (
    *("checkpoint_every", "checkpoints", "samples_every", "held_out_images"),
    *("workers", "restarts", "accumulate", "device"),
)
"""Settings that may differ when a training continues: they decide where and how it runs, not what it computes."""


def training_key(settings: TrainerSettings, data: ImageData) -> str:
    """Return a digest of all that decides the weights; where and on how many workers they are computed is left out."""
    content = settings_json(settings)
    decisive = {group: dict(content[group]) for group in ("data", "network", "diffusion", "training")}
    for group, keys in (("data", ("path", "memory_mb", "cache")), ("training", NOT_IN_THE_WEIGHTS)):
        for key in keys:
            del decisive[group][key]
    if settings.network.classes is None:
        del decisive["training"]["drop_labels"]
    return hashlib.sha256(json.dumps([decisive, data.fingerprint], sort_keys=True).encode()).hexdigest()


class CheckpointStore:
    """The checkpoint of one training under a URI such as s3://BUCKET/FOLDER or file:///FOLDER.

    `key` names the training there: it covers all that decides the weights, so trainings never meet each other's files.
    """

    def __init__(self, uri: str, key: str) -> None:
        """Open the store; raises InputError when no file system is known for the URI."""
        try:
            self._files = FileStore(joined(uri, key))
        except InputError as error:
            raise InputError(
                f"training.checkpoints can't be used ({error}); give a URI such as s3://BUCKET/FOLDER or file:///FOLDER"
            ) from None

    def upload(self, file: Path) -> None:
        """Replace the stored checkpoint by `file`; raises InputError when the store can't be written."""
        try:
            self._files.upload(file, file.name)
        except InputError as error:
            raise InputError(f"can't write the checkpoint to training.checkpoints: {error}") from None

    def fetch(self, file: Path) -> None:
        """Download the stored checkpoint to `file`, unless the one there is of the same or a later step.

        Raises InputError when the store can't be read.
        """
        stored = file.with_name(f".{file.name}.stored")
        try:
            if not self._files.exists(file.name):
                return
            write_atomically(stored, lambda path: self._files.download(file.name, path))
        except InputError as error:
            raise InputError(f"can't read training.checkpoints: {error}") from None
        if step_of(stored) > step_of(file):
            stored.replace(file)
        else:
            stored.unlink()

    def delete(self) -> None:
        """Delete the stored checkpoint; raises InputError when the store can't be written."""
        try:
            for name in self._files.names():
                self._files.delete(name)
        except InputError as error:
            raise InputError(f"can't delete the checkpoint at training.checkpoints: {error}") from None


def step_of(file: Path) -> int:
    """Return the step of a checkpoint; -1 when the file is missing or incomplete."""
    try:
        with safe_open(file, framework="pt") as content:
            return int((content.metadata() or {}).get("step", -1))
    except (SafetensorError, OSError, ValueError):
        return -1
