"""Read `npz`: arrays {train,val,test}_images and _labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.decode import Split, Splits, to_shape
from stepfront.trainers.data.spill_buffer import MemoryBudget


def read_npz(settings: DataSettings, budget: MemoryBudget) -> Splits:
    """Read uint8 arrays [N, H, W] or [N, H, W, C]; val is the held-out split, or else test.

    The file holds complete arrays, so the budget is not needed.
    """
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
        return to_shape(pixels, settings, str(path)), None
    if labels.ndim == 0 or labels.dtype.kind not in "biuf" or (labels < 0).any():
        given = f"{labels.dtype} {labels.shape}"
        raise InputError(f"{path}: {name}_labels is {given}; a number of at least 0 for each image needed")
    if len(labels) != len(images):
        raise InputError(f"{path}: {len(images)} {name} images but {len(labels)} labels")
    while labels.ndim > 1:
        labels = labels[:, 0]
    return to_shape(pixels, settings, str(path)), labels.astype(np.int64)
