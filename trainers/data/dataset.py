"""Load the images that the settings name, with a fingerprint, and convert pixels to floats and back."""

from __future__ import annotations

import errno
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.cache import AlreadyMadeError, PixelCache
from stepfront.trainers.data.decode import Split, Splits, to_shape
from stepfront.trainers.data.formats.dataset_format import find_format, source_filter
from stepfront.trainers.data.labels import note_rare_classes, settle_labels
from stepfront.trainers.data.pixels import check_depth
from stepfront.trainers.data.reading_report import ReadingReport
from stepfront.trainers.data.rows import Rows, held_out_rows, limited_rows
from stepfront.trainers.data.spill_buffer import Labels, MemoryBudget, Pixels, Progress, blocks
from stepfront.trainers.latent_space import LatentImages


@dataclass(frozen=True)
class ImageData:
    """Decoded images [N, C, H, W] uint8 with labels [N] or None; `fingerprint` is the sha256 over all of them."""

    name: str
    images: Pixels
    labels: Labels | None
    held_out_images: Pixels
    held_out_labels: Labels | None
    fingerprint: str
    report: ReadingReport = field(default_factory=ReadingReport, compare=False)
    latents: LatentImages | None = field(default=None, compare=False)
    """What networks are trained on in place of the pixels; None: on the pixels."""

    @property
    def channels(self) -> int:
        """The number of channels: 1 or 3."""
        return self.images.shape[1]

    @property
    def resolution(self) -> int:
        """The side of an image in pixels."""
        return self.images.shape[2]

    @property
    def network_shape(self) -> tuple[int, int, int]:
        """The shape of what a diffusion network reads: an image's [C, H, W], or its latents'."""
        if self.latents is None:
            return self.channels, self.resolution, self.resolution
        space = self.latents.space
        return space.channels, space.resolution, space.resolution

    @property
    def is_mapped(self) -> bool:
        """Whether the images are mapped from a file, so that sending them would read all of it."""
        return isinstance(self.images, np.memmap) or self.latents is not None

    def clean(self, rows: NDArray[np.integer], mirrored: Tensor | None = None) -> Tensor:
        """Return training images as a network reads them, [B, *network_shape] in float32.

        `mirrored` [B] says which of them are mirrored.
        """
        if self.latents is not None:
            return self.latents.clean(rows, mirrored)
        x0 = to_float(self.images[rows])
        return x0 if mirrored is None else torch.where(mirrored[:, None, None, None], x0.flip(3), x0)

    def of_network(self, most: int) -> NDArray[np.generic]:
        """Return training images as `to_float` takes them: all 8-bit pixels, or `most` latents, spread evenly."""
        if self.latents is None:
            return self.images
        rows = np.unique(np.linspace(0, len(self.images) - 1, min(most, len(self.images))).astype(int))
        return self.latents.clean(rows, None).numpy()

    def clean_held_out(self, rows: NDArray[np.integer] | slice) -> NDArray[np.generic]:
        """Return held-out images as `to_float` takes them: 8-bit pixels, or latents as a network reads them."""
        return self.held_out_images[rows] if self.latents is None else self.latents.clean_held_out(rows)

    def held_out_sample(self, most: int) -> Rows:
        """Return the rows of `most` held-out images, or of all, in an order that is drawn once and for all.

        Readers of folders go class by class: the first rows would be images of few classes.
        """
        return np.random.Generator(np.random.Philox(0)).permutation(len(self.held_out_images))[:most]

    @property
    def classes(self) -> int:
        """The largest label of both splits plus one; 0 without labels."""
        if self.labels is None:
            return 0
        held_out = -1 if self.held_out_labels is None else int(self.held_out_labels.max(initial=-1))
        return max(int(self.labels.max()), held_out) + 1

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes 0, 1, ... in the data; empty without labels."""
        return self.report.class_names


_Chosen: TypeAlias = tuple[Split, Rows]
"""A split, and the rows of it that are used, in ascending order."""


def load_data(
    settings: DataSettings,
    progress: Progress = lambda done, total: None,
    report: ReadingReport | None = None,
) -> ImageData:
    """Load the images that the settings name.

    Images that need more than `data.memory_mb` are mapped from a file in `data.cache`.  The first process that needs
    them decodes them once; the pixels are the same to the bit.  `report` is filled also where the images are refused.

    Raises InputError when they are missing, damaged or of a shape that can't be used.
    """
    read = find_format(settings.format)
    cache = PixelCache(settings, source_filter(settings.format))
    if (found := cache.find()) is not None:
        return _image_data(settings, *found, report)
    try:
        with MemoryBudget(settings.memory_mb * 2**20, cache.begin, progress, report) as budget:
            splits = _checked(settings, read(settings, budget), budget.report)
            train, held_out = _choose_rows(settings, *splits, budget.report)
            if budget.folder is None:
                return _in_memory(settings, train, held_out, budget.report)
            cache.store(budget.folder, train, held_out, budget.report)
    except AlreadyMadeError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(f"data.cache {settings.cache} has no space for the decoded images: {error.strerror}") from None
    finally:
        cache.release()
    found = cache.find()
    assert found is not None
    return _image_data(settings, *found, report)


def _checked(settings: DataSettings, splits: Splits, report: ReadingReport) -> Splits:
    """Return what a reader read in the settings' shape.  Raises InputError when it breaks the contract."""
    train, held_out = splits
    check_depth(settings, report, _place(settings))
    labels = train[1], None if held_out is None else held_out[1]
    if not report.classes_settled:
        labels = settle_labels(*labels, settings, report, _place(settings))
    first = _checked_split(settings, train[0], labels[0])
    return first, None if held_out is None else _checked_split(settings, held_out[0], labels[1])


def _checked_split(settings: DataSettings, images: Pixels, labels: Labels | None) -> Split:
    if images.dtype != np.uint8 or images.ndim != 4:
        raise InputError(
            f"data.format {settings.format} gave images {images.dtype} {list(images.shape)}; uint8 [N, C, H, W] needed"
        )
    if labels is not None and labels.shape != (len(images),):
        given = f"{labels.dtype} {list(labels.shape)}"
        raise InputError(f"data.format {settings.format} gave labels {given}; int64 [{len(images)}] or None needed")
    return to_shape(images, settings, _place(settings)), labels


def _choose_rows(
    settings: DataSettings, train: Split, held_out: Split | None, report: ReadingReport
) -> tuple[_Chosen, _Chosen]:
    """Return the rows for training and those that are held out."""
    rows = limited_rows(len(train[0]), train[1], settings.limit)
    if len(rows) < len(train[0]):
        report.leave_out("beyond data.limit", count=len(train[0]) - len(rows))
    if held_out is None:
        used, held = held_out_rows(len(rows), None if train[1] is None else train[1][rows], settings.held_out)
        used, held, held_out = rows[used], rows[held], train
        report.drawn = f"{len(held):,} images are held out at random (data.held_out), as the data names no split"
        report.note(report.drawn)
    else:
        used, held = rows, np.arange(len(held_out[0]))
    if len(used) < 2 or not len(held):
        raise InputError(f"{_place(settings)} holds {len(used)} training images; at least 2 and 1 held out needed")
    if train[0].shape[1:] != held_out[0].shape[1:]:
        shapes = " and ".join("x".join(map(str, split[0].shape[1:])) for split in (train, held_out))
        raise InputError(
            f"{_place(settings)}: training and held-out images differ ({shapes}); set data.size and data.channels"
        )
    labels = (None if split[1] is None else split[1][rows] for split, rows in ((train, used), (held_out, held)))
    report.take(len(used), len(held), note_rare_classes(next(labels), next(labels), report))
    return (train, used), (held_out, held)


def _in_memory(settings: DataSettings, train: _Chosen, held_out: _Chosen, report: ReadingReport) -> ImageData:
    used, held = _take_rows(*train), _take_rows(*held_out)
    return _image_data(settings, used, held, fingerprint(used, held), report)


def _take_rows(split: Split, rows: Rows) -> Split:
    images, labels = split
    if len(rows) == len(images):
        return split
    return images[rows], None if labels is None else labels[rows]


def _image_data(
    settings: DataSettings,
    train: Split,
    held_out: Split,
    fingerprint: str,
    report: ReadingReport,
    asked: ReadingReport | None = None,
) -> ImageData:
    if asked is not None and asked is not report:  # of an earlier reading
        vars(asked).update(vars(report))
    name = Path(settings.path).name if settings.path else settings.format
    return ImageData(name, *train, *held_out, fingerprint, report)


def to_float(images: NDArray[np.generic]) -> Tensor:
    """Convert 8-bit pixels to float32 in [-1, 1]; latents, which are float32, are returned as they are."""
    # torch warns about read-only arrays, such as mapped ones.
    pixels = np.ascontiguousarray(images) if images.flags.writeable else np.array(images)
    if pixels.dtype == np.float32:
        return torch.from_numpy(pixels)
    return torch.from_numpy(pixels).float().div_(127.5).sub_(1)


def to_pixels(images: Tensor) -> Pixels:
    """Convert images in about [-1, 1] to 8-bit pixels, clamped and rounded."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def fingerprint(*splits: Split) -> str:
    """Return the sha256 over the shapes, pixels and labels of the splits."""
    digest = hashlib.sha256()
    for images, labels in splits:
        digest.update(str(images.shape).encode())
        for part in blocks(images, 1024):
            digest.update(np.ascontiguousarray(part).reshape(-1).data)
        digest.update(b"none" if labels is None else np.ascontiguousarray(labels).data)
    return digest.hexdigest()


def _place(settings: DataSettings) -> str:
    return settings.path or settings.format
