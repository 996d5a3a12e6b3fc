"""Keep the pixels of a data set in a file, so that several processes decode its images once."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stepfront.arrays import Array
from stepfront.files import write_atomically
from stepfront.trainers.data import ImageData

PIXELS_FILE = "pixels.npz"


def keep_images(data: ImageData, folder: Path) -> None:
    """Write the pixels and labels of a data set to a folder."""
    none = np.zeros(0, np.int64)
    arrays = {
        "images": data.images,
        "labels": none if data.labels is None else data.labels,
        "held_out": data.held_out_images,
        "held_out_labels": none if data.held_out_labels is None else data.held_out_labels,
        "name": np.array(data.name),
        "fingerprint": np.array(data.fingerprint),
    }

    def write(path: Path) -> None:
        with open(path, "wb") as file:
            np.savez(file, **arrays)

    write_atomically(folder / PIXELS_FILE, write)


def kept_images(folder: Path) -> ImageData:
    """Read a data set that `keep_images` wrote."""
    with np.load(folder / PIXELS_FILE, allow_pickle=False) as pixels:
        labels, held_out_labels = (_labels(pixels[name]) for name in ("labels", "held_out_labels"))
        name, fingerprint = str(pixels["name"]), str(pixels["fingerprint"])
        return ImageData(name, pixels["images"], labels, pixels["held_out"], held_out_labels, fingerprint)


def _labels(values: Array) -> Array | None:
    return values if len(values) else None
