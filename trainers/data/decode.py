"""What every reader ends in: pictures or arrays brought to the settings' channels and size, as one array.

`decode` and `Gathered` take pictures one at a time, so that no reader holds more than the picture that it is at and the
result, or of a result larger than memory as much as the settings grant; `to_shape` takes arrays that are whole already.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.spill_buffer import Pile, Pixels, Room

Labels: TypeAlias = NDArray[np.int64]
Split: TypeAlias = tuple[Pixels, Labels | None]

SPLITS = {"train": "train", "val": "held_out", "valid": "held_out", "validation": "held_out", "test": "held_out"}
"""What files and folders of these names are taken as."""


def decode(content: bytes, name: str) -> Image.Image:
    """An image file's bytes -> the picture.  InputError names it where it can't be read."""
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except UnidentifiedImageError:
        raise InputError(f"{name} is no readable image: its content is of no known format") from None
    except Exception as error:  # each of Pillow's readers has its own for a damaged or an enormous file
        raise InputError(f"{name} is no readable image: {error}") from None
    # Pillow clamps 16-bit greys instead of scaling them: all but the darkest would become white.
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if image.mode.startswith("I;16") else image


class Gathered:
    """The pixels of pictures that are added one by one: grey until the first colour picture, of one size."""

    def __init__(self, settings: DataSettings, place: Path | str, room: Room, total: int | None = None) -> None:
        self._settings, self._place, self._room = settings, place, room
        self.total = total  # how many pictures there will be, where that is known or can be estimated
        self._channels = settings.channels or 1
        self._sizes: set[tuple[int, int]] = set()
        self._pile = Pile(room)
        self._labels: list[int] = []
        self.count = 0

    def add(self, content: bytes, name: str, label: int | None = None) -> None:
        """Decodes and takes in one picture, with its class or none."""
        image = decode(content, name)
        if self._settings.channels is None and self._channels == 1 and image.mode not in ("L", "LA", "1"):
            self._to_colour()
        array = as_array(image, self._channels, self._settings.size)
        self._sizes.add(array.shape[1:])
        if len(self._sizes) == 1:  # otherwise only the sizes are of interest any more
            self._pile.add(array.tobytes())
        if label is not None:
            self._labels.append(label)
        self.count += 1
        if self.total:
            self._room.progress(self.count, max(self.count, self.total))

    def split(self) -> Split:
        """All pictures [N, C, H, W], and their labels where each has one.  InputError where they do not go together."""
        if not self.count:
            raise InputError(f"no training images in {self._place}")
        if len(self._sizes) > 1:
            sizes = ", ".join(f"{width}x{height}" for height, width in sorted(self._sizes)[:4])
            raise InputError(f"images in {self._place} differ in size ({sizes}); set data.size to resize them")
        if self._labels and len(self._labels) < self.count:
            raise InputError(f"{self._place}: {self.count} images but {len(self._labels)} labels; all or none needed")
        shape = (self.count, self._channels, *next(iter(self._sizes)))
        pixels = self._pile.array().reshape(shape)
        return square(pixels, str(self._place)), np.array(self._labels, np.int64) if self._labels else None

    def _to_colour(self) -> None:
        if self._sizes:
            height, width = next(iter(self._sizes))
            colour, side = Pile(self._room), height * width
            for piece in self._pile.emptied(side):
                colour.add(np.frombuffer(piece, np.uint8).reshape(-1, 1, side).repeat(3, axis=1).tobytes())
            self._pile = colour
        self._channels = 3


def as_array(image: Image.Image, channels: int, size: int | None) -> Pixels:
    """A picture -> [C, H, W], its centre square resized to `size` where one is given."""
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
    """Arrays [N, C, H, W] brought to the settings' channels and size."""
    if pixels.shape[1] not in (1, 3):
        raise InputError(f"{place}: images of {pixels.shape[1]} channels; 1 (grey) or 3 (RGB) are possible")
    channels = settings.channels or pixels.shape[1]
    resized = settings.size is not None and pixels.shape[2:] != (settings.size, settings.size)
    if pixels.size and (channels != pixels.shape[1] or resized):
        images = [Image.fromarray(p[0] if len(p) == 1 else np.moveaxis(p, 0, 2)) for p in pixels]
        pixels = np.stack([as_array(image, channels, settings.size) for image in images])
    return square(pixels, place)


def square(pixels: Pixels, place: str) -> Pixels:
    """The same [N, C, H, W], contiguous; InputError when they are not square."""
    if pixels.shape[2] != pixels.shape[3] or not pixels.shape[2]:
        given = f"{pixels.shape[3]}x{pixels.shape[2]}"
        raise InputError(f"{place}: images of {given} pixels; set data.size to make them square")
    # A mapped array that is contiguous stays one, by its type, too.
    return pixels if pixels.flags.c_contiguous else np.ascontiguousarray(pixels)
