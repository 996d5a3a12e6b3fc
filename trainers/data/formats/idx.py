"""Read `idx`: a directory of MNIST-style files."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.decode import Pixels, Split, Splits, to_shape
from stepfront.trainers.data.spill_buffer import MemoryBudget


def read_idx(settings: DataSettings, budget: MemoryBudget) -> Splits:
    """Read train-images-idx3-ubyte and its like, gzipped or not; t10k, test or val are the held-out images.

    The files are complete arrays, so the budget is not needed.
    """
    directory = Path(str(settings.path))
    if not directory.is_dir():
        raise InputError(f"data.path {directory} is not a directory; idx data are a directory of MNIST-style files")
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
        return to_shape(images[:, None], settings, str(directory)), None if labels is None else labels.astype(np.int64)
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
        raise InputError(
            f"{path} is not an idx file of bytes with {axes} axes (its header is {raw[:4].hex() or 'empty'})"
        )
    shape = struct.unpack(f">{axes}I", raw[4 : 4 + 4 * axes])
    expected = int(np.prod(shape, dtype=np.int64))
    if len(raw) - 4 - 4 * axes != expected:
        raise InputError(f"{path} is incomplete: {len(raw) - 4 - 4 * axes} of {expected} bytes")
    # A copy, as torch warns about read-only arrays.
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()
