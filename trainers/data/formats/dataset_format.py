"""Define the contract of a dataset format, and find one by the name in `data.format`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from stepfront.plugins import FORMATS
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.decode import Splits
from stepfront.trainers.data.formats import cifar, parquet
from stepfront.trainers.data.formats.file_tree import TAR_SUFFIXES
from stepfront.trainers.data.spill_buffer import MemoryBudget


class DatasetFormat(Protocol):
    """A function that reads all images that the settings name.

    It returns the training split and the held-out split, or None where the data have no split of their own.  A split is
    a pair: images as uint8 [N, C, H, W] with 1 or 3 channels, and labels as int64 [N] from 0 on, or None.  Images of
    another size or number of channels than `data.size` and `data.channels` are converted by the caller.  The caller
    also takes the share of `data.limit`, and turns other labels (names, numbers that do not begin at 0) into classes.

    `budget.report` is where a reader counts what it finds and leaves out, and says what it guessed.

    The same settings and files must give the same arrays in the same order, in every process.  A fingerprint of the
    pixels binds supernets, reference statistics and scores to the data.  Problems with the files are InputErrors that
    name the file.

    Images that may be larger than memory go through `decode.ImageStack`, which takes them one at a time within
    `budget`.  The decoded pixels are then cached under the settings and the names, sizes and times of the files in
    `data.path`.
    """

    def __call__(self, settings: DataSettings, budget: MemoryBudget) -> Splits:
        """Return training and held-out split."""
        ...


_SOURCES: dict[str, Callable[[str], bool]] = {
    "cifar": cifar.is_batch_name,
    "parquet": lambda name: name.lower().endswith(parquet.SUFFIX),
    "webdataset": lambda name: name.lower().endswith(TAR_SUFFIXES),
}


def find_format(name: str) -> DatasetFormat:
    """Return the reader of a format: one of ours, an entry point's, or that of an import path.

    Raises InputError when there is none.
    """
    return FORMATS.load(name)


def source_filter(name: str) -> Callable[[str], bool]:
    """Return which files of a folder the format reads, by their paths there; all files where that is not known."""
    of_file = _SOURCES.get(name, lambda file: True)
    return lambda path: of_file(path.rpartition("/")[2])
