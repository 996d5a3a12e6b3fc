"""Images of every supported format -> 8-bit arrays with labels, split into training and held out, and a fingerprint.

Formats: `digits` (8x8, shipped with scikit-learn), `idx` (MNIST-style files, gzipped or not), `npz` (arrays
{train,val,test}_images and _labels), `folder` (or a zip of one; class subfolders or none; train/ and val/ or test/
are taken as the split where they exist).  Grey and RGB are both first-class.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from trainers.config import DataSettings
from trainers.errors import InputError

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
Split = tuple[Pixels, Labels | None]

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff"}
_SPLITS = {"train": "train", "val": "held_out", "valid": "held_out", "test": "held_out"}


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
        digest.update(np.ascontiguousarray(images).tobytes())
        digest.update(b"none" if labels is None else np.ascontiguousarray(labels).tobytes())
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


# --- one reader a format: settings -> (training split, held-out split or None) ---------------------------------------


def _read_digits(settings: DataSettings) -> tuple[Split, Split | None]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    return (_shape(pixels, settings, "digits"), digits.target.astype(np.int64)), None


def _read_idx(settings: DataSettings) -> tuple[Split, Split | None]:
    directory = Path(str(settings.path))
    if not directory.is_dir():
        raise InputError(f"data.path {directory} is no directory; idx data are a directory of MNIST-style files")
    train = _idx_split(directory, ("train",), settings)
    if train is None:
        raise InputError(f"no idx images in {directory}; expected train-images-idx3-ubyte, or the same with .gz")
    return train, _idx_split(directory, ("t10k", "test", "val"), settings)


def _idx_split(directory: Path, names: tuple[str, ...], settings: DataSettings) -> Split | None:
    for name in names:
        images = _idx_file(directory, f"{name}-images", axes=3)
        if images is None:
            continue
        labels = _idx_file(directory, f"{name}-labels", axes=1)
        if labels is not None and len(labels) != len(images):
            raise InputError(f"{directory}: {len(images)} {name} images but {len(labels)} labels")
        return _shape(images[:, None], settings, str(directory)), None if labels is None else labels.astype(np.int64)
    return None


def _idx_file(directory: Path, name: str, axes: int) -> Pixels | None:
    for suffix in ("", ".gz"):
        path = directory / f"{name}-idx{axes}-ubyte{suffix}"
        if path.is_file():
            return _decode_idx(path, axes)
    return None


def _decode_idx(path: Path, axes: int) -> Pixels:
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged: {error}") from None
    if raw[:4] != bytes((0, 0, 8, axes)) or len(raw) < 4 + 4 * axes:
        raise InputError(f"{path} is no idx file of bytes with {axes} axes (its header is {raw[:4].hex() or 'empty'})")
    shape = struct.unpack(f">{axes}I", raw[4 : 4 + 4 * axes])
    expected = int(np.prod(shape, dtype=np.int64))
    if len(raw) - 4 - 4 * axes != expected:
        raise InputError(f"{path} is cut short: {len(raw) - 4 - 4 * axes} of {expected} bytes")
    # A copy, as torch warns of arrays that can't be written.
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()


def _read_npz(settings: DataSettings) -> tuple[Split, Split | None]:
    path = Path(str(settings.path))
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise InputError(f"no data file at {path}") from None
    except Exception as error:  # zipfile, zlib and numpy each have their own for a damaged archive
        raise InputError(f"{path} is not a readable npz: {error}") from None
    if "train_images" not in arrays:
        raise InputError(f"{path} has no array train_images; it has: {', '.join(sorted(arrays)) or 'none'}")
    train = _npz_split(arrays, "train", settings, path)
    held_out = next((n for n in ("val", "test") if f"{n}_images" in arrays), None)
    return train, None if held_out is None else _npz_split(arrays, held_out, settings, path)


def _npz_split(arrays: dict[str, NDArray[Any]], name: str, settings: DataSettings, path: Path) -> Split:
    images, labels = arrays[f"{name}_images"], arrays.get(f"{name}_labels")
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        given = f"{images.dtype} {images.shape}"
        raise InputError(f"{path}: {name}_images is {given}; uint8 [N, H, W] or [N, H, W, C] needed")
    pixels = images[:, None] if images.ndim == 3 else np.moveaxis(images, 3, 1)
    if labels is None:
        return _shape(pixels, settings, str(path)), None
    if labels.ndim == 0 or labels.dtype.kind not in "biuf" or (labels < 0).any():
        given = f"{labels.dtype} {labels.shape}"
        raise InputError(f"{path}: {name}_labels is {given}; a number of at least 0 for each image needed")
    if len(labels) != len(images):
        raise InputError(f"{path}: {len(images)} {name} images but {len(labels)} labels")
    while labels.ndim > 1:
        labels = labels[:, 0]
    return _shape(pixels, settings, str(path)), labels.astype(np.int64)


def _read_folder(settings: DataSettings) -> tuple[Split, Split | None]:
    path = Path(str(settings.path))
    if not path.exists():
        raise InputError(f"no data at {path}")
    splits: dict[str, list[tuple[str, Image.Image]]] = {"train": [], "held_out": []}
    found = sorted(_files(path), key=lambda item: item[0])
    if not found:
        raise InputError(f"no images in {path}; known suffixes: {' '.join(sorted(_SUFFIXES))}")
    parts = [PurePosixPath(name).parts for name, _ in found]
    strip = len(_common_folders(parts))
    has_splits = all(len(p) > strip + 1 and p[strip] in _SPLITS for p in parts)
    for (name, content), p in zip(found, parts, strict=True):
        split = _SPLITS[p[strip]] if has_splits else "train"
        folders = p[strip + has_splits : -1]
        splits[split].append(("/".join(folders), _decode(content, f"{path}: {name}")))
    names = sorted({label for items in splits.values() for label, _ in items})
    train = _folder_split(splits["train"], names, settings, path)
    return train, _folder_split(splits["held_out"], names, settings, path) if splits["held_out"] else None


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        for file in path.rglob("*"):
            within = file.relative_to(path)
            if _is_image(within) and file.is_file():
                yield within.as_posix(), file.read_bytes()
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if _is_image(PurePosixPath(name)):
                    yield name, archive.read(name)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:  # Runtime: encrypted or exotic
        raise InputError(f"{path} is neither a folder nor a whole zip of images: {error}") from None


def _is_image(name: PurePath) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.parts)
    return name.suffix.lower() in _SUFFIXES and not hidden


def _common_folders(parts: list[tuple[str, ...]]) -> tuple[str, ...]:
    # One folder around everything, as archives often have it, is no class; a lone split folder is none either.
    common: list[str] = []
    for level in zip(*(p[:-1] for p in parts), strict=False):
        if len(set(level)) != 1 or level[0] in _SPLITS:
            break
        common.append(level[0])
    return tuple(common)


def _decode(content: bytes, name: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except UnidentifiedImageError:
        raise InputError(f"{name} is no readable image: its content is of no known format") from None
    except Exception as error:  # each of Pillow's readers has its own for a damaged or an enormous file
        raise InputError(f"{name} is no readable image: {error}") from None
    # Pillow clamps 16-bit greys instead of scaling them: all but the darkest would become white.
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if image.mode.startswith("I;16") else image


def _folder_split(items: list[tuple[str, Image.Image]], names: list[str], settings: DataSettings, path: Path) -> Split:
    if not items:
        raise InputError(f"no training images in {path}")
    grey = all(image.mode in ("L", "LA", "1") for _, image in items)
    channels = settings.channels or (1 if grey else 3)
    pixels = [_as_array(image, channels, settings.size) for _, image in items]
    shapes = {p.shape for p in pixels}
    if len(shapes) > 1:
        sizes = ", ".join(f"{s[2]}x{s[1]}" for s in sorted(shapes)[:4])
        raise InputError(f"images in {path} differ in size ({sizes}); set data.size to resize them")
    labels = np.array([names.index(label) for label, _ in items], dtype=np.int64) if len(names) > 1 else None
    return _square(np.stack(pixels), str(path)), labels


def _as_array(image: Image.Image, channels: int, size: int | None) -> Pixels:
    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None and image.size != (size, size):
        image = _centre_square(image).resize((size, size), Image.Resampling.LANCZOS)
    array = np.asarray(image, dtype=np.uint8)
    return array[None] if channels == 1 else np.moveaxis(array, 2, 0)


def _centre_square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _shape(pixels: Pixels, settings: DataSettings, place: str) -> Pixels:
    """Arrays [N, C, H, W] brought to the settings' channels and size."""
    if pixels.shape[1] not in (1, 3):
        raise InputError(f"{place}: images of {pixels.shape[1]} channels; 1 (grey) or 3 (RGB) are possible")
    channels = settings.channels or pixels.shape[1]
    resized = settings.size is not None and pixels.shape[2:] != (settings.size, settings.size)
    if pixels.size and (channels != pixels.shape[1] or resized):
        images = [Image.fromarray(p[0] if len(p) == 1 else np.moveaxis(p, 0, 2)) for p in pixels]
        pixels = np.stack([_as_array(image, channels, settings.size) for image in images])
    return _square(pixels, place)


def _square(pixels: Pixels, place: str) -> Pixels:
    if pixels.shape[2] != pixels.shape[3] or not pixels.shape[2]:
        given = f"{pixels.shape[3]}x{pixels.shape[2]}"
        raise InputError(f"{place}: images of {given} pixels; set data.size to make them square")
    return np.ascontiguousarray(pixels)


_READERS = {"digits": _read_digits, "idx": _read_idx, "npz": _read_npz, "folder": _read_folder}
