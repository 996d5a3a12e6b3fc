"""Bring pictures and arrays to the channels and the size of the settings, as one array.

`ImageStack` takes image files one at a time.  A reader then holds the picture that it decodes and the result, and of
the result no more than the memory that the settings grant.  `to_shape` takes arrays that are complete already.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.pixels import BadImageError, decode
from stepfront.trainers.data.reading_report import shown
from stepfront.trainers.data.spill_buffer import Labels, MemoryBudget, Pixels, SpillBuffer

Split: TypeAlias = tuple[Pixels, Labels | None]

Splits: TypeAlias = tuple[Split, Split | None]
"""Training split, and held-out split where the data have one."""


class ImageStack:
    """Pictures of one size that are added one by one: grey until the first colour picture.

    Unreadable ones are left out and counted.  `split` refuses more of them than `data.bad_files`.
    """

    def __init__(
        self, settings: DataSettings, place: Path | str, budget: MemoryBudget, total: int | None = None
    ) -> None:
        self._settings, self._place, self._budget = settings, place, budget
        self.total = total  # number of all pictures, where it is known or can be estimated
        self._channels = settings.channels or 1
        self._sizes: set[tuple[int, int]] = set()
        self._buffer = SpillBuffer(budget)
        self._labels: list[int] = []
        self._bad, self._first_bad = 0, ""
        self.count = 0

    def add(self, content: bytes | BadImageError, name: str, label: int | None = None) -> None:
        """Decode and append one image file, with its class or none; an error stands for a file without content.

        Raises InputError where a setting has to say how its pixels are to be read.
        """
        try:
            if isinstance(content, BadImageError):
                raise content
            image = decode(content, self._settings, self._budget.report)
        except BadImageError as error:
            self._leave_out(name, error)
            return
        except InputError as error:
            raise InputError(f"{shown(name)}: {error}") from None
        if self._settings.channels is None and self._channels == 1 and image.mode != "L":
            self._to_colour()
        array = as_array(image, self._channels, self._settings.size)
        self._sizes.add(array.shape[1:])
        if len(self._sizes) == 1:  # otherwise `split` reports the sizes and needs no pixels
            self._buffer.add(array.tobytes())
        if label is not None:
            self._labels.append(label)
        self.count += 1
        if self.total:
            self._budget.progress(self.count, max(self.count, self.total))

    def split(self) -> Split:
        """Return all pictures [N, C, H, W], and their labels where each has one.

        Raises InputError when there are none, when their sizes differ, or when only some have labels.
        """
        self._check_bad()
        if not self.count:
            raise InputError(f"no training images in {self._place}")
        if len(self._sizes) > 1:
            sizes = ", ".join(f"{width}x{height}" for height, width in sorted(self._sizes)[:4])
            raise InputError(f"images in {self._place} differ in size ({sizes}); set data.size to resize them")
        if self._labels and len(self._labels) < self.count:
            raise InputError(f"{self._place}: {self.count} images but {len(self._labels)} labels; all or none needed")
        shape = (self.count, self._channels, *next(iter(self._sizes)))
        pixels = self._buffer.array().reshape(shape)
        return square(pixels, str(self._place)), np.array(self._labels, np.int64) if self._labels else None

    def _leave_out(self, name: str, error: BadImageError) -> None:
        self._bad += 1
        self._first_bad = self._first_bad or f"{shown(name)} {error}"
        self._budget.report.leave_out("unreadable", name.removeprefix(f"{self._place}: "))

    def _check_bad(self) -> None:
        total, most = self.count + self._bad, self._settings.bad_files
        if self._bad > most * total:
            share = np.ceil(1000 * self._bad / total) / 1000
            raise InputError(
                f"{self._first_bad}; {self._bad:,} of {total:,} images can't be read, and data.bad_files allows "
                f"{most:.3g} of them: mend or delete them, or set data.bad_files={share:g}"
            )

    def _to_colour(self) -> None:
        if self._sizes:
            height, width = next(iter(self._sizes))
            colour, side = SpillBuffer(self._budget), height * width
            for piece in self._buffer.drain(side):
                colour.add(np.frombuffer(piece, np.uint8).reshape(-1, 1, side).repeat(3, axis=1).tobytes())
            self._buffer = colour
        self._channels = 3


def as_array(image: Image.Image, channels: int, size: int | None) -> Pixels:
    """Return a picture as [C, H, W], with its centre square resized to `size` where one is given."""
    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None and image.size != (size, size):
        image = _centre_square(image).resize((size, size), Image.Resampling.LANCZOS)
    array = np.asarray(image, dtype=np.uint8)
    return array[None] if channels == 1 else np.moveaxis(array, 2, 0)


def _centre_square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def to_shape(pixels: Pixels, settings: DataSettings, place: str) -> Pixels:
    """Bring arrays [N, C, H, W] to the channels and the size of the settings.

    Raises InputError when they have neither 1 nor 3 channels, or are not square at the end.
    """
    if pixels.shape[1] not in (1, 3):
        raise InputError(f"{place}: images of {pixels.shape[1]} channels; 1 (grey) or 3 (RGB) are possible")
    channels = settings.channels or pixels.shape[1]
    resized = settings.size is not None and pixels.shape[2:] != (settings.size, settings.size)
    if pixels.size and (channels != pixels.shape[1] or resized):
        images = [Image.fromarray(p[0] if len(p) == 1 else np.moveaxis(p, 0, 2)) for p in pixels]
        pixels = np.stack([as_array(image, channels, settings.size) for image in images])
    return square(pixels, place)


def square(pixels: Pixels, place: str) -> Pixels:
    """Return the same [N, C, H, W], contiguous.  Raises InputError when the images are not square."""
    if pixels.shape[2] != pixels.shape[3] or not pixels.shape[2]:
        given = f"{pixels.shape[3]}x{pixels.shape[2]}"
        raise InputError(f"{place}: images of {given} pixels; set data.size to make them square")
    # A contiguous mapped array keeps its type, so that its pages can be released.
    return pixels if pixels.flags.c_contiguous else np.ascontiguousarray(pixels)
