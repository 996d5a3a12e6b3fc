"""Features of real images: what KID, precision and recall hold generated images against, beside the reference of FID.

A fixed draw of the training images, kept as rows.  10,000 rows of 2,048 features are 82 MB.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stepfront.errors import InputError
from stepfront.files import write_atomically

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class RealFeatures:
    """Rows [N, D] in the order drawn, so that any first part of them is a random draw as well; and of which features
    and of how many and which images."""

    rows: Rows
    digest: str
    data_fingerprint: str

    def save(self, path: Path) -> None:
        """Writes an .npz."""

        def write(beside: Path) -> None:
            with open(beside, "wb") as file:
                np.savez(file, rows=self.rows, digest=self.digest, data_fingerprint=self.data_fingerprint)

        write_atomically(path, write)

    @staticmethod
    def load(path: Path) -> RealFeatures:
        """Reads what `save` wrote.  InputError where it is damaged."""
        try:
            with np.load(path, allow_pickle=False) as file:
                return RealFeatures(file["rows"], str(file["digest"]), str(file["data_fingerprint"]))
        except Exception as error:  # zipfile, numpy and KeyError each have their own for a damaged archive
            raise InputError(f"{path} holds no features of real images: {error}; delete it") from None


class Draw:
    """Up to `most` of `images` images, the same for equal numbers; takes the rows of those as batches pass by."""

    def __init__(self, images: int, most: int) -> None:
        # One permutation whatever `most` is: a smaller draw is the first part of a larger one.
        self.chosen = np.random.Generator(np.random.Philox(1)).permutation(images)[:most]
        self.rows: Rows | None = None

    def take(self, first: int, rows: NDArray[np.floating]) -> None:
        """The rows of images `first` and following."""
        if self.rows is None:
            self.rows = np.full((len(self.chosen), rows.shape[1]), np.nan, np.float32)
        places = np.flatnonzero((self.chosen >= first) & (self.chosen < first + len(rows)))
        self.rows[places] = rows[self.chosen[places] - first]
