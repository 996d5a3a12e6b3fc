"""Store the features of some real images, with which KID, precision and recall compare generated images.

They are rows of a fixed draw of the training images.  10,000 rows of 2,048 features are 82 MB.
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
    """Rows [N, D] in the order drawn, and the digests of their features and images.

    Any first part of the rows is a random draw as well.
    """

    rows: Rows
    digest: str
    data_fingerprint: str

    def save(self, path: Path) -> None:
        """Write an .npz."""

        def write(beside: Path) -> None:
            with open(beside, "wb") as file:
                np.savez(file, rows=self.rows, digest=self.digest, data_fingerprint=self.data_fingerprint)

        write_atomically(path, write)

    @staticmethod
    def load(path: Path) -> RealFeatures:
        """Read what `save` wrote.  Raises InputError when it is damaged."""
        try:
            with np.load(path, allow_pickle=False) as file:
                return RealFeatures(file["rows"], str(file["digest"]), str(file["data_fingerprint"]))
        except Exception as error:  # zipfile, numpy and KeyError each have their own for a damaged archive
            raise InputError(
                f"{path} holds no features of real images: {error}; delete it, and it is made again"
            ) from None


class Draw:
    """A draw of up to `most` of `images` images, the same for equal numbers, that collects their rows from batches."""

    def __init__(self, images: int, most: int) -> None:
        # One permutation for every `most`, so a smaller draw is the first part of a larger one.
        self.chosen = np.random.Generator(np.random.Philox(1)).permutation(images)[:most]
        self.rows: Rows | None = None

    def take(self, first: int, rows: NDArray[np.floating]) -> None:
        """Store the drawn ones of the rows of images `first` and following."""
        if self.rows is None:
            self.rows = np.full((len(self.chosen), rows.shape[1]), np.nan, np.float32)
        places = np.flatnonzero((self.chosen >= first) & (self.chosen < first + len(rows)))
        self.rows[places] = rows[self.chosen[places] - first]
