"""Compute kernel distance, precision and recall over feature rows of real and of generated images.

All are functions of two arrays [N, D] and [M, D], computed in float64, a block of rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepfront.arrays import Array
from stepfront.errors import InputError

Features = NDArray[np.floating]

_BLOCK = 1024
"""Rows at a time: a block against 50,000 rows is a table of 400 MB."""


@dataclass(frozen=True)
class KernelScore:
    """KID as a score of plans by the name that the settings give it, against feature rows [N, D] of real images."""

    name: str
    real: NDArray[np.float32]

    def wanted(self, images: int) -> int:
        """Return how many rows of a plan's images are compared: as many as there are real ones."""
        return min(images, len(self.real))

    def of(self, rows: Features) -> float:
        """Return the KID of a plan's first feature rows, of as many as are wanted."""
        return kernel_distance(self.real[: len(rows)], rows[: len(self.real)])


def kernel_distance(real: Features, generated: Features, block: int = _BLOCK) -> float:
    """Return KID (Binkowski et al. 2018) under the kernel k(x, y) = (x.y / D + 1)^3.

    It is the unbiased squared maximum mean discrepancy, lemma 6 of Gretton et al. 2012, over all pairs.  So it has the
    least variance that these rows allow; the mean over subsets that others report has the same expectation.  It is near
    0 for equal distributions, and then negative as often as positive.  Raises InputError for arrays of different
    dimensions or with fewer than 2 rows.
    """
    real, generated = _pair(real, generated, least=2)
    n, m = len(real), len(generated)
    within_real = (_kernel_sum(real, real, block) - _own_kernel_sum(real)) / (n * (n - 1))
    within_generated = (_kernel_sum(generated, generated, block) - _own_kernel_sum(generated)) / (m * (m - 1))
    return within_real + within_generated - 2 * _kernel_sum(real, generated, block) / (n * m)


def precision_recall(
    real: Features, generated: Features, neighbours: int = 3, block: int = _BLOCK
) -> tuple[float, float]:
    """Return improved precision and recall (Kynkaanniemi et al. 2019, eq. 1 and 2).

    A set's manifold is the union of balls around its rows, each as wide as the distance to its k-th nearest other row.
    Precision is the share of generated rows within the manifold of the real ones, recall the share of real rows within
    that of the generated ones.  Raises InputError when a set has no more rows than `neighbours`.
    """
    if neighbours < 1:
        raise InputError(f"{neighbours} neighbours; at least 1 needed")
    real, generated = _pair(real, generated, least=neighbours + 1)
    centre = real.mean(axis=0)
    real -= centre  # |x|^2 + |y|^2 - 2 x.y cancels far from zero
    generated -= centre
    precision = _share_within(generated, real, _squared_radii(real, neighbours, block), block)
    return precision, _share_within(real, generated, _squared_radii(generated, neighbours, block), block)


def _kernel_sum(rows: Array, columns: Array, block: int) -> float:
    return sum(float(((part @ columns.T / rows.shape[1] + 1) ** 3).sum()) for _, part in _blocks(rows, block))


def _own_kernel_sum(rows: Array) -> float:
    return float(((np.square(rows).sum(axis=1) / rows.shape[1] + 1) ** 3).sum())


def _squared_radii(rows: Array, neighbours: int, block: int) -> Array:
    """Return the squared distance of each row to its k-th nearest other row."""
    radii = np.empty(len(rows))
    for first, part in _blocks(rows, block):
        squared = _squared_distances(part, rows)
        squared[np.arange(len(part)), first + np.arange(len(part))] = np.inf  # a row is not its own neighbour
        radii[first : first + len(part)] = np.partition(squared, neighbours - 1, axis=1)[:, neighbours - 1]
    return radii


def _share_within(rows: Array, centres: Array, squared_radii: Array, block: int) -> float:
    within = 0
    for _, part in _blocks(rows, block):
        within += int((_squared_distances(part, centres) <= squared_radii).any(axis=1).sum())
    return within / len(rows)


def _squared_distances(rows: Array, columns: Array) -> Array:
    squared = rows @ columns.T
    squared *= -2
    squared += np.square(rows).sum(axis=1)[:, None]
    squared += np.square(columns).sum(axis=1)
    return np.maximum(squared, 0, out=squared)


def _blocks(rows: Array, size: int) -> Iterator[tuple[int, Array]]:
    for first in range(0, len(rows), size):
        yield first, rows[first : first + size]


def _pair(real: Features, generated: Features, least: int) -> tuple[Array, Array]:
    for name, rows in (("real", real), ("generated", generated)):
        if rows.ndim != 2 or len(rows) < least:
            raise InputError(f"{name} features are {list(rows.shape)}; [images, features] of {least} images needed")
        if not np.isfinite(rows).all():
            raise InputError(f"{name} features are not all finite")
    if real.shape[1] != generated.shape[1]:
        raise InputError(f"features of {real.shape[1]} and {generated.shape[1]} dimensions can't be compared")
    return np.array(real, np.float64), np.array(generated, np.float64)
