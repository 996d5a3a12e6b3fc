"""Read `digits`: the 8x8 images that scikit-learn ships; no file needed."""

from __future__ import annotations

import numpy as np

from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.decode import Splits, to_shape
from stepfront.trainers.data.spill_buffer import MemoryBudget


def read_digits(settings: DataSettings, budget: MemoryBudget) -> Splits:
    """Read the 1,797 digits, with their 17 levels spread over 0..255; the budget is not needed."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    budget.report.unit = "images of scikit-learn"
    return (to_shape(pixels, settings, "digits"), digits.target.astype(np.int64)), None
