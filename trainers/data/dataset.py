"""Settings -> the images that they name, in memory, with a fingerprint; and pixels <-> floats."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainers.config import DataSettings
from trainers.data.cifar import read_cifar
from trainers.data.digits import read_digits
from trainers.data.folder import read_folder
from trainers.data.idx import read_idx
from trainers.data.npz import read_npz
from trainers.data.parquet import read_parquet
from trainers.data.pixels import Labels, Pixels, Split
from trainers.data.webdataset import read_webdataset
from trainers.errors import InputError

_READERS: dict[str, Callable[[DataSettings], tuple[Split, Split | None]]] = {
    "digits": read_digits,
    "idx": read_idx,
    "npz": read_npz,
    "folder": read_folder,
    "cifar": read_cifar,
    "parquet": read_parquet,
    "webdataset": read_webdataset,
}
"""One reader a format: settings -> (training split, held-out split or None)."""


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


def load_data(settings: DataSettings) -> ImageData:
    """The images that the settings name.  Raises InputError when they are missing, damaged or of a shape that can't be
    used."""
    train, held_out = _READERS[settings.format](settings)
    if settings.limit is not None:
        train = (train[0][: settings.limit], None if train[1] is None else train[1][: settings.limit])
    if held_out is None:
        train, held_out = _hold_out(train, settings.held_out)
    if len(train[0]) < 2 or not len(held_out[0]):
        raise InputError(f"{_place(settings)} holds {len(train[0])} training images; at least 2 and 1 held out needed")
    if train[0].shape[1:] != held_out[0].shape[1:]:
        shapes = " and ".join("x".join(map(str, split[0].shape[1:])) for split in (train, held_out))
        raise InputError(
            f"{_place(settings)}: training and held-out images differ ({shapes}); set data.size and data.channels"
        )
    return ImageData(
        name=Path(settings.path).name if settings.path else settings.format,
        images=train[0],
        labels=train[1],
        held_out_images=held_out[0],
        held_out_labels=held_out[1],
        fingerprint=fingerprint(train, held_out),
    )


def to_float(images: Pixels) -> Tensor:
    """8-bit pixels -> float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).float().div_(127.5).sub_(1)


def to_pixels(images: Tensor) -> Pixels:
    """Images in about [-1, 1] -> 8-bit pixels, clamped and rounded."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def fingerprint(*splits: Split) -> str:
    """sha256 over the shapes, pixels and labels of the splits."""
    digest = hashlib.sha256()
    for images, labels in splits:
        digest.update(str(images.shape).encode())
        digest.update(np.ascontiguousarray(images).reshape(-1).data)
        digest.update(b"none" if labels is None else np.ascontiguousarray(labels).data)
    return digest.hexdigest()


def _hold_out(split: Split, share: float) -> tuple[Split, Split]:
    # A fixed permutation: which images are held out must not depend on the training seed.
    images, labels = split
    order = np.random.Generator(np.random.Philox(0)).permutation(len(images))
    cut = max(1, round(share * len(images)))
    kept, held = np.sort(order[cut:]), np.sort(order[:cut])
    return (
        (images[kept], None if labels is None else labels[kept]),
        (images[held], None if labels is None else labels[held]),
    )


def _place(settings: DataSettings) -> str:
    return settings.path or settings.format
