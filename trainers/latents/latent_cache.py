"""Keep encoded images in files that every later verb maps, under a digest of images, autoencoder and flips.

An entry is made in a temporary folder and renamed.  Other processes that want the same latents wait meanwhile.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from stepfront.errors import InputError
from stepfront.files import read_json, write_json
from stepfront.trainers.config import DataSettings
from stepfront.trainers.latent_space import LatentImages, Latents, LatentSpace
from stepfront.trainers.validation import validate

_CARD = "card.json"
_LAYOUT = 1  # raise it whenever the same images are encoded to other latents, or stored in other files


class LatentCache:
    """The entry of one dataset under one autoencoder, in the folder `data.cache`."""

    def __init__(self, settings: DataSettings, name: str, fingerprint: str, digest: str) -> None:
        content = [_LAYOUT, fingerprint, digest, settings.flip, settings.latent_type]
        key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
        self._folder, self._flip = Path(settings.cache), settings.flip
        self.entry = self._folder / f"{name}-latents-{key}"
        self._part, self._lock = self._folder / f".{key}.part", FileLock(self._folder / f".{key}.lock")

    def find(self) -> LatentImages | None:
        """Return the latents, mapped; None where there is no entry.  Raises InputError when it is damaged."""
        if not (self.entry / _CARD).exists():
            return None
        names = ("train", "held_out", *(("mirrored",) if self._flip else ()))
        try:
            space = validate(LatentSpace, read_json(self.entry / _CARD, "card of latents"))
            arrays: dict[str, Latents] = {
                name: np.load(self.entry / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names
            }
        except (OSError, ValueError) as error:
            raise InputError(f"{self.entry} is damaged ({error}); delete it: the images are encoded again") from None
        return LatentImages(space, arrays["train"], arrays.get("mirrored"), arrays["held_out"])

    def make(self, encode: Callable[[Path], LatentSpace]) -> LatentImages:
        """Return the latents; `encode` writes its arrays into a folder and returns their space where there are none.

        Raises InputError when `data.cache` can't be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._lock:
                if (found := self.find()) is None:
                    self._write(encode)
                    found = self.find()
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            what = "has no space for the latents" if full else "can't be written"
            raise InputError(f"data.cache {self._folder} {what}: {error.strerror}; give another folder") from None
        assert found is not None
        return found

    def _write(self, encode: Callable[[Path], LatentSpace]) -> None:
        # Under the lock, also at its end: a process that waits for it must not delete what another one encodes.
        shutil.rmtree(self._part, ignore_errors=True)  # left by a process that was killed
        try:
            self._part.mkdir()
            card: dict[str, Any] = encode(self._part).model_dump(mode="json")
            write_json(self._part / _CARD, card)
            shutil.rmtree(self.entry, ignore_errors=True)  # an entry without a card is incomplete
            os.replace(self._part, self.entry)
        finally:
            shutil.rmtree(self._part, ignore_errors=True)
