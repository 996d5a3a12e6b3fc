"""Extrapolate the Frechet distance to infinitely many images (FID-infinity: Chong & Forsyth 2020, arXiv 1911.07023).

The distance of N images exceeds that of their distribution by about c / N, and c differs between generators.  A line
fitted to the distances at several numbers of images, against 1 / N, has the unbiased distance as its intercept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stepfront.errors import InputError
from stepfront.trainers.metrics.fid import Moments, Reference

PARTS = 4
"""The smallest subsets have this fraction of the images."""


def extrapolated_distance(rows: NDArray[np.floating], reference: Reference) -> float:
    """Return the distance of feature rows [N, D] to the reference, extrapolated to infinitely many rows.

    For k from 1 to `PARTS` the rows are split into k subsets without a common row, and the k distances are averaged.
    Every size uses all rows, which is less noisy than one subset per size.  The split is the same at each call, so
    plans that share their noise still do.  The result may be negative, because an unbiased estimate of 0 scatters
    around 0.  Rows fewer than features break the linearity: there is a bias left.  Raises InputError for fewer than
    `2 * PARTS` rows.
    """
    if len(rows) < 2 * PARTS:
        raise InputError(f"extrapolating FID needs at least {2 * PARTS} images, given {len(rows)}")
    shuffled = np.asarray(rows)[np.random.default_rng(0).permutation(len(rows))]
    parts = np.arange(1, PARTS + 1)
    distances = [
        np.mean([reference.distance(Moments.of([part])) for part in np.array_split(shuffled, count)]) for count in parts
    ]
    _, intercept = np.polyfit(parts / len(rows), distances, 1)
    return float(intercept)
