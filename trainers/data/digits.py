"""`digits`: the 8x8 images that scikit-learn ships; no file needed."""

from __future__ import annotations

import numpy as np

from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.decode import Split, to_shape


def read_digits(settings: DataSettings) -> tuple[Split, Split | None]:
    """The 1,797 digits; their 17 levels are spread over 0..255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    return (to_shape(pixels, settings, "digits"), digits.target.astype(np.int64)), None
