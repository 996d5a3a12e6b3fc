"""Turn one image file, or an array of any type, into 8-bit pixels: one rule for all readers.

- EXIF orientation is applied, and transparency is composed on `data.background`.
- 16 bits are 0 to 65,535 and lose their lower byte, unless `data.range` says what is black and white.  Images of 32
  bits, signed or float need `data.range`.
- Of animations and stacks the first frame is taken.
- CMYK and palettes become RGB.
"""

from __future__ import annotations

import io
import warnings
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from stepfront.errors import InputError, first_line
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.reading_report import ReadingReport
from stepfront.trainers.data.spill_buffer import Pixels

BACKGROUNDS = {"white": 255, "black": 0, "grey": 128}
ALWAYS_GRANTED_MB = 256
MOST_FILE_BYTES = 256 * 2**20
"""The largest image file, or batch of CIFAR, that is read at all."""
TOO_LARGE = "is not a readable image: it has more than 256 MB"

_NOT_PICTURES = {"EPS", "PDF", "WMF", "GRIB", "BUFR", "HDF5", "MPEG", "FITS"}
"""Formats that Pillow knows but only in part, or through other programs."""

_SIXTEEN_BITS = 65_535
_TWELVE_BITS = 4_095


class BadImageError(Exception):
    """An image file that can't be read; `data.bad_files` decides whether it is left out.  The text is the reason."""


def most_bytes(settings: DataSettings) -> int:
    """Return how many bytes one file or array may need."""
    return int(max(settings.memory_mb, ALWAYS_GRANTED_MB) * 2**20)


def check_size(needed: int, settings: DataSettings, what: str) -> None:
    """Raise InputError when an array would need more memory than is granted, before it is read."""
    if needed > most_bytes(settings):
        raise InputError(
            f"{what} needs {needed / 2**20:,.0f} MB, and data.memory_mb is {settings.memory_mb:,g}; raise it, or give "
            "files that are read one image at a time (format folder, parquet or webdataset)"
        )


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    common = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]  # first: some of the others try before they look
    return tuple(dict.fromkeys([*common, *(name for name in Image.ID if name not in _NOT_PICTURES)]))


@cache
def picture_suffixes() -> frozenset[str]:
    """Return the suffixes, in lower case, of all files that Pillow reads as pictures."""
    known = set(_formats())
    return frozenset(suffix for suffix, format in Image.registered_extensions().items() if format in known)


def looks_like_a_picture(head: bytes) -> bool:
    """Return whether the first 16 bytes are those of a common picture format."""
    plain = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
    return head.startswith(plain) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or head[4:12] == b"ftypavif"


def decode(content: bytes, settings: DataSettings, report: ReadingReport) -> Image.Image:
    """Decode an image file to mode L or RGB, upright and opaque.

    Raises BadImageError when it can't be read, and InputError where a setting has to say how.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata; an enormous image is an error by the next line
            image = Image.open(io.BytesIO(content), formats=_formats())
            _check_memory(image, settings)
            return _converted(image, settings, report)
    except (InputError, BadImageError):
        raise
    except UnidentifiedImageError:
        raise BadImageError(_unknown(content)) from None
    except (Exception, MemoryError) as error:  # each of Pillow's readers has its own for a damaged or enormous file
        raise BadImageError(f"is not a readable image: {first_line(error)}") from None


def _unknown(content: bytes) -> str:
    if content.startswith(b"version https://git-lfs"):
        return "is not a readable image: it is a pointer of Git LFS (git lfs pull gets the file)"
    if not content:
        return "is not a readable image: it is empty"
    return "is not a readable image: its content has no known format"


def _check_memory(image: Image.Image, settings: DataSettings) -> None:
    needed = image.width * image.height * 4
    if needed > most_bytes(settings):
        raise BadImageError(
            f"is not a readable image: {image.width} x {image.height} pixels need more than data.memory_mb"
        )


def _converted(image: Image.Image, settings: DataSettings, report: ReadingReport) -> Image.Image:
    changed = []
    if getattr(image, "is_animated", False) and image.format != "MPO":
        changed.append(f"of several frames ({image.format}; the first is taken)")
        image.seek(0)
    image.load()
    upright = _upright(image)
    if upright is not image:
        changed.append("turned as EXIF says")
    if upright.mode.startswith("I") or upright.mode == "F":
        bits = "32" if upright.mode in "IF" and image.format != "PPM" else "16"
        pixels = _scaled(np.asarray(upright), bits == "16", settings, report)
        changed.append(f"of {bits} bits (scaled)")
        upright = Image.fromarray(pixels)
    elif upright.mode == "CMYK":
        changed.append("of CMYK colours (to RGB)")
    if upright.has_transparency_data:
        upright, seen = _opaque(upright, BACKGROUNDS[settings.background])
        if seen:
            changed.append(f"with transparency (on {settings.background})")
    for what in changed:  # counted in the end, so that no unreadable image is
        report.change(what)
    return upright if upright.mode in ("L", "RGB") else upright.convert("L" if upright.mode == "1" else "RGB")


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(0x0112, 1)
        if orientation in range(2, 9):
            return ImageOps.exif_transpose(image)
    except Exception:  # damaged metadata of a good image
        return image
    return image


def _opaque(image: Image.Image, level: int) -> tuple[Image.Image, bool]:
    """Return an image composed on a grey level, and whether any pixel was transparent."""
    grey = image.mode in ("L", "LA", "La", "1")
    if image.mode == "La":
        image = image.convert("LA")
    colours = image.convert("RGBA")
    alpha = colours.getchannel("A")
    seen = alpha.getextrema()[0] != 255
    if seen:
        below = Image.new("RGBA", image.size, (level, level, level, 255))
        colours = Image.alpha_composite(below, colours)
    return colours.getchannel("R") if grey else colours.convert("RGB"), seen


def _scaled(values: NDArray[Any], sixteen: bool, settings: DataSettings, report: ReadingReport) -> Pixels:
    """Return values of more than 8 bits as 8 bits, by `data.range` or by the type's own range."""
    if settings.range is not None:
        if not np.isfinite(values).all():
            raise BadImageError("is not a readable image: it holds NaN or infinity")
        low, high = settings.range
        levels = (values.astype(np.float64) - low) * (255 / (high - low))
        return np.floor(np.clip(levels, 0, 255) + 0.5).astype(np.uint8)
    if not sixteen:
        raise InputError(
            f"it holds {values.dtype} values from {values.min():g} to {values.max():g}; set data.range to those that "
            "become black and white, such as [0, 1]"
        )
    report.deepest = max(report.deepest, int(values.max(initial=0)))
    return (values >> 8).astype(np.uint8)


def array_pixels(values: NDArray[Any], settings: DataSettings, report: ReadingReport, place: str) -> Pixels:
    """Return arrays of any type as 8-bit pixels of the same shape; bytes are returned as they are.

    Raises InputError where `data.range` has to say what is black and white.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        report.change("of 1 bit", len(values))
        return values.astype(np.uint8) * np.uint8(255)
    sixteen = values.dtype == np.uint16
    if values.dtype.kind not in "iuf" or not values.size:
        raise InputError(f"{place} is {values.dtype} {values.shape}; uint8 [N, H, W] or [N, H, W, C] needed")
    if settings.range is None and not sixteen:
        raise InputError(
            f"{place} is {values.dtype} {values.shape} from {np.nanmin(values):g} to {np.nanmax(values):g}; "
            "uint8 [N, H, W] or [N, H, W, C] needed, or data.range: the values of black and white, such as [0, 1]"
        )
    report.change(f"of {values.dtype} (scaled)", len(values))
    try:
        return np.stack([_scaled(one, sixteen, settings, report) for one in values])
    except BadImageError:
        raise InputError(f"{place} holds NaN or infinity; give finite values") from None


def opaque_array(pixels: Pixels, settings: DataSettings, report: ReadingReport) -> Pixels:
    """Return RGBA arrays [N, 4, H, W] as RGB, composed on `data.background`."""
    alpha = pixels[:, 3:].astype(np.uint32)
    level = BACKGROUNDS[settings.background]
    seen = int((alpha < 255).any(axis=(1, 2, 3)).sum())
    if seen:
        report.change(f"with transparency (on {settings.background})", seen)
    return ((pixels[:, :3] * alpha + level * (255 - alpha) + 127) // 255).astype(np.uint8)


def check_depth(settings: DataSettings, report: ReadingReport, place: str) -> None:
    """Raise InputError when images of 16 bits use so few of them that nearly all would be black."""
    if settings.range is None and 0 <= report.deepest <= _TWELVE_BITS:
        raise InputError(
            f"{place}: images of 16 bits have no value above {report.deepest:,}, of {_SIXTEEN_BITS:,} possible; set "
            f"data.range to the values that become black and white, such as [0, {max(report.deepest, 1)}], or "
            f"[0, {_SIXTEEN_BITS}] to keep them as dark as they are"
        )
