"""Keep a copy of a training's checkpoint at a URI, apart from the training's own directory."""

from __future__ import annotations

from pathlib import Path

from stepfront.addresses import joined
from stepfront.errors import InputError
from stepfront.file_store import FileStore
from stepfront.files import write_atomically
from stepfront.trainers.training.checkpoint_file import step_of


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
            if file.name not in self._files.names():
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
