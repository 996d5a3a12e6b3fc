"""Settings -> the images that they name, in memory or mapped from a file, with a fingerprint; and pixels <-> floats."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.cache import AlreadyMadeError, PixelCache, Rows
from stepfront.trainers.data.cifar import is_batch_name, read_cifar
from stepfront.trainers.data.decode import Labels, Pixels, Split
from stepfront.trainers.data.digits import read_digits
from stepfront.trainers.data.folder import is_image_name, read_folder
from stepfront.trainers.data.idx import read_idx
from stepfront.trainers.data.npz import read_npz
from stepfront.trainers.data.parquet import SUFFIX, read_parquet
from stepfront.trainers.data.spill_buffer import Progress, Room, blocks
from stepfront.trainers.data.webdataset import SUFFIXES, read_webdataset

Read: TypeAlias = tuple[Split, Split | None]
"""Training split, and held-out split where the data have one."""

_WHOLE: dict[str, Callable[[DataSettings], Read]] = {"digits": read_digits, "idx": read_idx, "npz": read_npz}
"""Readers of formats that are one array already."""

_GATHERED: dict[str, tuple[Callable[[DataSettings, Room], Read], Callable[[str], bool]]] = {
    "folder": (read_folder, is_image_name),
    "cifar": (read_cifar, is_batch_name),
    "parquet": (read_parquet, lambda name: name.endswith(SUFFIX)),
    "webdataset": (read_webdataset, lambda name: name.endswith(SUFFIXES)),
}
"""Readers that decode piece by piece into a room, which may be smaller than the pixels; and which files they read."""


@dataclass(frozen=True)
class ImageData:
    """Decoded images [N, C, H, W] uint8 with labels [N] or none; `fingerprint` is the sha256 over all of them."""

    name: str
    images: Pixels
    labels: Labels | None
    held_out_images: Pixels
    held_out_labels: Labels | None
    fingerprint: str

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def resolution(self) -> int:
        return self.images.shape[2]

    @property
    def classes(self) -> int:
        return 0 if self.labels is None else int(self.labels.max()) + 1


_Chosen: TypeAlias = tuple[Split, Rows]


def load_data(settings: DataSettings, progress: Progress = lambda done, total: None) -> ImageData:
    """The images that the settings name, mapped from a file in `data.cache` where they need more than `data.memory_mb`:
    decoded once, by the first who asks, and the same to the bit.

    Raises InputError when they are missing, damaged or of a shape that can't be used.
    """
    if settings.format in _WHOLE:
        return _in_memory(settings, *_arranged(settings, *_WHOLE[settings.format](settings)))
    read, wanted = _GATHERED[settings.format]
    cache = PixelCache(settings, wanted)
    if (found := cache.find()) is not None:
        return _image_data(settings, *found)
    try:
        with Room(settings.memory_mb * 2**20, cache.begin, progress) as room:
            train, held_out = _arranged(settings, *read(settings, room))
            if room.folder is None:
                return _in_memory(settings, train, held_out)
            cache.keep(room.folder, train, held_out)
    except AlreadyMadeError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(f"data.cache {settings.cache} has no room for the decoded images: {error.strerror}") from None
    finally:
        cache.release()
    found = cache.find()
    assert found is not None
    return _image_data(settings, *found)


def _arranged(settings: DataSettings, train: Split, held_out: Split | None) -> tuple[_Chosen, _Chosen]:
    """The rows, in ascending order, that are for training, and those that are held out."""
    count = min(len(train[0]), settings.limit or len(train[0]))
    if held_out is None:
        kept, held = _hold_out(count, settings.held_out)
        held_out = train
    else:
        kept, held = np.arange(count), np.arange(len(held_out[0]))
    if len(kept) < 2 or not len(held):
        raise InputError(f"{_place(settings)} holds {len(kept)} training images; at least 2 and 1 held out needed")
    if train[0].shape[1:] != held_out[0].shape[1:]:
        shapes = " and ".join("x".join(map(str, split[0].shape[1:])) for split in (train, held_out))
        raise InputError(
            f"{_place(settings)}: training and held-out images differ ({shapes}); set data.size and data.channels"
        )
    return (train, kept), (held_out, held)


def _in_memory(settings: DataSettings, train: _Chosen, held_out: _Chosen) -> ImageData:
    kept, held = _taken(*train), _taken(*held_out)
    return _image_data(settings, kept, held, fingerprint(kept, held))


def _taken(split: Split, rows: Rows) -> Split:
    images, labels = split
    if len(rows) == len(images):
        return split
    return images[rows], None if labels is None else labels[rows]


def _image_data(settings: DataSettings, train: Split, held_out: Split, fingerprint: str) -> ImageData:
    name = Path(settings.path).name if settings.path else settings.format
    return ImageData(name, *train, *held_out, fingerprint)


def to_float(images: Pixels) -> Tensor:
    """8-bit pixels -> float32 in [-1, 1]."""
    # torch warns of arrays that can't be written, as mapped ones can't.
    pixels = np.ascontiguousarray(images) if images.flags.writeable else np.array(images)
    return torch.from_numpy(pixels).float().div_(127.5).sub_(1)


def to_pixels(images: Tensor) -> Pixels:
    """Images in about [-1, 1] -> 8-bit pixels, clamped and rounded."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def fingerprint(*splits: Split) -> str:
    """sha256 over the shapes, pixels and labels of the splits."""
    digest = hashlib.sha256()
    for images, labels in splits:
        digest.update(str(images.shape).encode())
        for part in blocks(images, 1024):
            digest.update(np.ascontiguousarray(part).reshape(-1).data)
        digest.update(b"none" if labels is None else np.ascontiguousarray(labels).data)
    return digest.hexdigest()


def _hold_out(count: int, share: float) -> tuple[Rows, Rows]:
    # A fixed permutation: which images are held out must not depend on the training seed.
    order = np.random.Generator(np.random.Philox(0)).permutation(count)
    cut = max(1, round(share * count))
    return np.sort(order[cut:]), np.sort(order[:cut])


def _place(settings: DataSettings) -> str:
    return settings.path or settings.format
