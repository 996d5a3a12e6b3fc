"""Read `npz`: arrays of images and labels, whose names say split and role: train_images, y_test, ..."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepfront.errors import InputError, first_line
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.decode import Split, Splits, to_shape
from stepfront.trainers.data.pixels import array_pixels, check_size, opaque_array
from stepfront.trainers.data.reading_report import ReadingReport, shown
from stepfront.trainers.data.spill_buffer import MemoryBudget, Pixels
from stepfront.trainers.data.splits import choose_held_out, split_files, tokens

_MOST_HEADER_BYTES = 1 << 16
_IMAGES = {"images", "image", "imgs", "img", "x", "data", "pixels", "pictures", "inputs", "samples"}
_LABELS = {"labels", "label", "y", "targets", "target", "classes", "class"}


def read_npz(settings: DataSettings, budget: MemoryBudget) -> Splits:
    """Read arrays [N, H, W], [N, H, W, C] or [N, C, H, W]; the split is in their names, such as train_images.

    The file holds complete arrays, so their sizes are checked before they are read.
    """
    path, report = Path(str(settings.path)), budget.report
    shapes = _shapes(path, settings)
    images, labels = _roles(shapes, settings, path)
    kinds = dict(zip(images, split_files([_spaced(name) for name in images], settings), strict=True))
    roles = choose_held_out(kinds.values())
    report.unit = "images in arrays"
    chosen: dict[str, str] = {}
    for name, kind in kinds.items():
        if len(kinds) > 1:
            report.use(roles[kind], name, shapes[name][0][0] if shapes[name][0] else 0)
        if roles[kind] == "unused":
            continue
        if roles[kind] in chosen:
            raise InputError(
                f"{path} has several arrays of images for one split ({chosen[roles[kind]]}, {shown(name)}); set "
                "data.splits or data.image_key"
            )
        chosen[roles[kind]] = name
    if "train" not in chosen:
        raise InputError(f"{path} has no array train_images; it has: {', '.join(map(shown, sorted(shapes))) or 'none'}")
    parts = {
        role: _part(path, name, _labels_of(name, labels, len(images)), settings, report)
        for role, name in chosen.items()
    }
    return parts["train"], parts.get("held_out")


def _shapes(path: Path, settings: DataSettings) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return shape and type of each array.  Raises InputError when the file is damaged or an array is too large."""
    shapes = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                with archive.open(entry) as file:
                    head = io.BytesIO(file.read(_MOST_HEADER_BYTES))  # a longer header is cut off, and refused
                first = np.lib.format.read_magic(head) == (1, 0)
                read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
                shape, _, kind = read(head)
                if kind.hasobject:
                    raise ValueError(f"{entry.filename} holds objects, which would have to be unpickled")
                needed = int(np.prod([int(side) for side in shape], dtype=object)) * kind.itemsize
                check_size(max(needed, entry.file_size), settings, f"{path}: {shown(entry.filename)}")
                shapes[entry.filename.removesuffix(".npy")] = shape, kind
    except FileNotFoundError:
        raise InputError(f"no data file at {path}") from None
    except InputError:
        raise
    except Exception as error:  # zipfile, zlib and numpy each have their own for a damaged archive
        raise InputError(f"{path} is not a readable npz: {first_line(error)}") from None
    return shapes


def _roles(shapes: dict[str, Any], settings: DataSettings, path: Path) -> tuple[list[str], list[str]]:
    """Return the names of the arrays that hold images and of those that hold labels."""
    for key in (settings.image_key, settings.label_key):
        if key is not None and not any(key in name for name in shapes):
            raise InputError(f"{path} has no array {key}; it has: {', '.join(map(shown, sorted(shapes)))}")
    images = [n for n in shapes if (settings.image_key in n if settings.image_key else _IMAGES & set(_words(n)))]
    labels = [n for n in shapes if (settings.label_key in n if settings.label_key else _LABELS & set(_words(n)))]
    labels = [name for name in labels if name not in images or settings.label_key]
    if not images:  # such as np.savez(path, images, labels)
        images = [name for name, (shape, _) in shapes.items() if len(shape) in (3, 4) and name not in labels]
        images = images if len(images) == 1 else []
        if images and not labels:
            count = shapes[images[0]][0][0]
            labels = [name for name, (shape, _) in shapes.items() if len(shape) in (1, 2) and shape[0] == count]
            labels = labels if len(labels) == 1 else []
    return images, labels


def _words(name: str) -> list[str]:
    return tokens(_spaced(name))


def _spaced(name: str) -> str:
    return re.sub(r"^([xyXY])(?=(train|val|test)|Train|Val|Test)", r"\1_", name)  # xtrain, as x_train


def _labels_of(images: str, labels: list[str], arrays: int) -> str | None:
    """Return the labels whose name differs from that of the images in its role alone."""
    rest = [word for word in _words(images) if word not in _IMAGES]
    same = [name for name in labels if [word for word in _words(name) if word not in _LABELS] == rest]
    if same:
        return same[0]
    return labels[0] if arrays == 1 and len(labels) == 1 else None


def _part(path: Path, name: str, label: str | None, settings: DataSettings, report: ReadingReport) -> Split:
    try:
        with np.load(path, allow_pickle=False) as file:
            images: NDArray[Any] = file[name]
            labels = None if label is None else file[label]
    except Exception as error:
        raise InputError(f"{path} is not a readable npz: {first_line(error)}") from None
    report.found += len(images) if images.ndim else 0
    if images.ndim not in (3, 4):
        raise InputError(f"{path}: {name} is {images.dtype} {images.shape}; uint8 [N, H, W] or [N, H, W, C] needed")
    pixels = array_pixels(images, settings, report, f"{path}: {name}")
    pixels = pixels[:, None] if pixels.ndim == 3 else _channels_second(pixels, f"{path}: {name}", report)
    if labels is not None and labels.ndim and len(labels) != len(images):
        split = name.split("_")[0]
        raise InputError(f"{path}: {len(images)} {split} images but {len(labels)} labels")
    if pixels.shape[1] == 4:
        pixels = opaque_array(pixels, settings, report)
    return to_shape(pixels, settings, str(path)), labels


def _channels_second(images: Pixels, place: str, report: ReadingReport) -> Pixels:
    """Return images [N, C, H, W].  Channels are last, or else second where only that is a number of channels."""
    if images.shape[3] not in (1, 3, 4) and images.shape[1] in (1, 3, 4):
        report.note(f"{place} is taken as [N, C, H, W]")
        return images
    return np.moveaxis(images, 3, 1)
