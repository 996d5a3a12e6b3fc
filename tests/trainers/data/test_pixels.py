"""Image files of every mode, made here: each is what a viewer shows, scaled by the rule, or refused in one line."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.pixels import (
    BadImageError,
    array_pixels,
    check_depth,
    check_size,
    decode,
    opaque_array,
    picture_suffixes,
)
from stepfront.trainers.data.reading_report import ReadingReport

RNG = np.random.RandomState(0)
GREY = RNG.randint(0, 256, (8, 8)).astype(np.uint8)
COLOUR = RNG.randint(0, 256, (8, 8, 3)).astype(np.uint8)
LEVELS = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def decoded(content: bytes, **settings: Any) -> tuple[np.ndarray, dict[str, int]]:
    report = ReadingReport()
    image = decode(content, DataSettings(**settings), report)
    assert image.mode in ("L", "RGB")
    return np.asarray(image), report.changed


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "WEBP", "PPM", "TGA", "PCX", "JPEG2000"])
def test_plain_pictures_are_what_was_saved(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    pixels, changed = decoded(encoded(Image.fromarray(COLOUR), format, **options))
    assert np.array_equal(pixels, COLOUR)
    assert changed == {}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(format: str, orientation: int) -> None:
    stored = np.repeat(np.repeat(np.arange(4, dtype=np.uint8).reshape(2, 2) * 60, 8, 0), 8, 1)
    turned = {2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: np.transpose, 6: lambda a: np.rot90(a, 3)}
    turned |= {7: lambda a: np.rot90(a, 2).T, 8: np.rot90, 1: lambda a: a}
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels, _ = decoded(encoded(Image.fromarray(stored).convert("RGB"), format, exif=exif, quality=95))
    assert np.abs(pixels[:, :, 0].astype(int) - turned[orientation](stored)).max() < 8


@pytest.mark.parametrize(("background", "level"), [("white", 255), ("black", 0), ("grey", 128)])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L", "1"])
def test_what_is_transparent_shows_the_background_and_the_rest_is_untouched(
    background: str, level: int, mode: str
) -> None:
    values = np.zeros((8, 8, 4), np.uint8)
    values[..., :3] = 200
    values[2:6, 2:6] = (60, 60, 60, 255)
    image = Image.fromarray(values)
    options: dict[str, Any] = {}
    if mode in ("RGB", "L"):
        image, options = image.convert(mode), {"transparency": (200, 200, 200) if mode == "RGB" else 200}
    elif mode == "1":
        image, options = image.convert("L").point(lambda v: 255 * (v > 100)).convert("1"), {"transparency": 255}
    elif mode == "P":
        image = Image.fromarray((values[..., 3] == 0).astype(np.uint8)).convert("P")
        image.putpalette([60, 60, 60, 200, 0, 0])
        options = {"transparency": 1}
    else:
        image = image.convert(mode)
    pixels, changed = decoded(encoded(image, "PNG", **options), background=background)
    assert (pixels[0, 0] == level).all()
    assert (pixels[3, 3] == (0 if mode == "1" else 60)).all()
    assert changed == {f"with transparency (on {background})": 1}


def test_partly_transparent_pixels_are_mixed_and_opaque_ones_equal() -> None:
    values = np.dstack([COLOUR, np.full((8, 8), 255, np.uint8)])
    pixels, changed = decoded(encoded(Image.fromarray(values), "PNG"))
    assert np.array_equal(pixels, COLOUR)
    assert changed == {}
    values[..., 3] = RNG.randint(0, 256, (8, 8))
    alpha = values[..., 3:].astype(float) / 255
    expected = COLOUR * alpha + 255 * (1 - alpha)
    assert np.abs(decoded(encoded(Image.fromarray(values), "PNG"))[0] - expected).max() <= 1
    planes = np.moveaxis(values, 2, 0)[None]
    array = opaque_array(planes, DataSettings(), ReadingReport())
    assert np.abs(array[0].transpose(1, 2, 0) - expected).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bits_keep_their_upper_byte_and_none_is_clamped(format: str) -> None:
    image = Image.fromarray(LEVELS) if format != "PPM" else Image.fromarray(LEVELS.astype(np.int32))
    pixels, changed = decoded(encoded(image, format))
    assert np.array_equal(pixels, LEVELS >> 8)
    assert changed == {"of 16 bits (scaled)": 1}


def test_12_bits_in_files_of_16_are_asked_about_and_spread_by_the_settings() -> None:
    content = encoded(Image.fromarray(LEVELS >> 4), "PNG")
    report = ReadingReport()
    decode(content, DataSettings(), report)
    with pytest.raises(InputError, match=r"no value above 4,095, .* data\.range"):
        check_depth(DataSettings(), report, "place")
    spread = decoded(content, range=(0, 4095))[0]
    assert np.array_equal(spread, np.floor((LEVELS >> 4) * (255 / 4095) + 0.5))
    check_depth(DataSettings(range=(0, 65535)), report, "place")


@pytest.mark.parametrize("values", [LEVELS / 65535, LEVELS.astype(np.int32) - 1000, LEVELS.astype(np.int32) * 1000])
def test_float_signed_and_32_bit_pictures_need_a_range(values: np.ndarray) -> None:
    low, high = float(values.min()), float(values.max())
    content = encoded(Image.fromarray(values.astype(np.float32) if values.dtype.kind == "f" else values), "TIFF")
    with pytest.raises(InputError, match=r"set data\.range"):
        decoded(content)
    pixels = decoded(content, range=(low, high))[0]
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert np.abs(pixels - (values - low) * (255 / (high - low))).max() <= 0.5 + 1e-3
    assert (decoded(content, range=(high + 1, high + 2))[0] == 0).all()
    array = array_pixels(values[None], DataSettings(range=(low, high)), ReadingReport(), "place")
    assert np.abs(array[0].astype(int) - pixels).max() <= 1


def test_nan_is_no_value() -> None:
    values = np.full((8, 8), np.nan, np.float32)
    with pytest.raises(BadImageError, match="NaN"):
        decoded(encoded(Image.fromarray(values), "TIFF"), range=(0.0, 1.0))
    with pytest.raises(InputError, match="NaN"):
        array_pixels(values[None], DataSettings(range=(0.0, 1.0)), ReadingReport(), "place")


@pytest.mark.parametrize(("mode", "format"), [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("P", "PNG"), ("P", "GIF")])
def test_cmyk_and_palettes_become_rgb(mode: str, format: str) -> None:
    image = Image.fromarray(np.full((8, 8, 3), (200, 60, 30), np.uint8))
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    pixels, _ = decoded(encoded(image, format))
    assert np.abs(pixels[4, 4].astype(int) - (200, 60, 30)).max() < 12


def test_one_bit_is_black_and_white() -> None:
    assert set(np.unique(decoded(encoded(Image.fromarray(GREY).convert("1"), "PNG"))[0])) == {0, 255}


@pytest.mark.parametrize("format", ["GIF", "TIFF", "WEBP", "PNG"])
def test_of_several_frames_the_first_is_taken_and_said(format: str) -> None:
    frames = [Image.fromarray(np.full((8, 8, 3), shade, np.uint8)) for shade in (40, 120, 200)]
    options = {"lossless": True} if format == "WEBP" else {}
    content = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    pixels, changed = decoded(content)
    assert (pixels == 40).all()
    assert changed == {f"of several frames ({format}; the first is taken)": 1}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"no image", "no known format"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "Git LFS"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "no known format"),  # would start Ghostscript
        (encoded(Image.new("1", (9000, 9000)), "PNG"), "9000 x 9000 pixels need more than data.memory_mb"),
        (encoded(Image.fromarray(GREY), "PNG")[:-30], "not a readable image"),
        (encoded(Image.fromarray(np.tile(GREY, (8, 8))), "JPEG")[:600], "not a readable image"),
    ],
)
def test_what_cannot_be_read_says_why(content: bytes, reason: str) -> None:
    with pytest.raises(BadImageError, match=reason):
        decoded(content, memory_mb=1.0)


def test_damaged_metadata_do_not_spoil_a_picture() -> None:
    content = encoded(Image.fromarray(COLOUR), "JPEG", exif=b"Exif\0\0garbage", quality=95)
    assert decoded(content)[0].shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 8, 8), np.float32), r"float32 \(2, 8, 8\) from 0 to 0; .* data\.range"),
        (np.zeros((2, 8, 8), np.int64), r"data\.range"),
        (np.zeros((2, 8, 8), np.complex64), "uint8"),
        (np.full((2, 8, 8), "a"), "uint8"),
    ],
)
def test_arrays_of_other_types_are_refused(values: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        array_pixels(values, DataSettings(), ReadingReport(), "place")


def test_arrays_of_bits_and_of_16_bits_follow_the_rule_of_files() -> None:
    report = ReadingReport()
    assert np.array_equal(array_pixels(LEVELS[None], DataSettings(), report, "p")[0], LEVELS >> 8)
    assert np.array_equal(array_pixels(LEVELS[None] > 9, DataSettings(), report, "p")[0], 255 * (LEVELS > 9))
    assert report.deepest == 65535
    assert array_pixels(GREY, DataSettings(), report, "p") is GREY


def test_sizes_are_checked_before_anything_is_read() -> None:
    check_size(200 * 2**20, DataSettings(memory_mb=1.0), "a file")
    with pytest.raises(InputError, match=r"a file needs 5,000 MB, and data\.memory_mb is 4,096"):
        check_size(5000 * 2**20, DataSettings(), "a file")


def test_suffixes_are_those_of_pillow_without_documents() -> None:
    assert {".png", ".jfif", ".pgm", ".ppm", ".avif", ".jp2", ".tif", ".jpe", ".webp", ".bmp"} <= picture_suffixes()
    assert not {".pdf", ".eps", ".ps", ".h5", ".mpg", ".wmf", ".txt"} & picture_suffixes()
