"""Frechet distance (Heusel et al. 2017, eq. 6): features of images -> streamed moments -> distance.  All in float64."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainers.errors import InputError
from trainers.files import write_atomically

Array = NDArray[np.float64]


class Moments:
    """Mean and covariance of feature rows that arrive in batches [B, D] and are not kept."""

    def __init__(self, dimensions: int) -> None:
        self.count = 0
        self._mean = np.zeros(dimensions)
        self._scatter = np.zeros((dimensions, dimensions))

    def add(self, features: NDArray[np.floating]) -> None:
        """Takes a batch in (Chan et al. 1979: merging keeps precision where a plain sum of squares cancels)."""
        rows = np.asarray(features, dtype=np.float64)
        mean = rows.mean(axis=0)
        centred, shift, total = rows - mean, mean - self._mean, self.count + len(rows)
        self._scatter += centred.T @ centred + np.outer(shift, shift) * (self.count * len(rows) / total)
        self._mean = self._mean + shift * (len(rows) / total)
        self.count = total

    @property
    def mean(self) -> Array:
        return self._mean

    @property
    def covariance(self) -> Array:
        """Unbiased; needs two rows."""
        if self.count < 2:
            raise InputError(f"a covariance needs at least 2 images, given {self.count}")
        return self._scatter / (self.count - 1)

    @staticmethod
    def of(batches: Iterable[NDArray[np.floating]]) -> Moments:
        """The moments of all batches."""
        moments: Moments | None = None
        for batch in batches:
            moments = moments or Moments(batch.shape[1])
            moments.add(batch)
        if moments is None:
            raise InputError("no images to take statistics of")
        return moments


@dataclass(frozen=True)
class Reference:
    """Statistics of the real images under named features; the square root of the covariance is made once."""

    mean: Array
    covariance: Array
    count: int
    features: str
    digest: str
    data_fingerprint: str

    @cached_property
    def root(self) -> Array:
        """The symmetric square root of the covariance."""
        values, vectors = np.linalg.eigh(self.covariance)
        return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T

    @property
    def content(self) -> str:
        """sha256 of mean and covariance: two references of one name are told apart."""
        return hashlib.sha256(self.mean.tobytes() + self.covariance.tobytes()).hexdigest()

    def distance(self, moments: Moments) -> float:
        """Frechet distance of `moments` to this reference."""
        return _distance(self.mean, self.covariance, self.root, moments.mean, moments.covariance)

    def save(self, path: Path) -> None:
        """Writes an .npz with `mu` and `sigma`, as the field exchanges them, and what they were made from."""

        def write(beside: Path) -> None:
            with open(beside, "wb") as file:
                np.savez(
                    file,
                    mu=self.mean,
                    sigma=self.covariance,
                    count=self.count,
                    features=self.features,
                    digest=self.digest,
                    data_fingerprint=self.data_fingerprint,
                )

        write_atomically(path, write)

    @staticmethod
    def load(path: Path) -> Reference:
        """Reads what `save` wrote, or any .npz with `mu` [D] and `sigma` [D, D]: what such a file does not say is left
        empty, and 0 images."""
        try:
            with np.load(path, allow_pickle=False) as file:
                mean, covariance = file["mu"].astype(np.float64), file["sigma"].astype(np.float64)
                said = {
                    key: str(file[key]) if key in file else "" for key in ("features", "digest", "data_fingerprint")
                }
                count = int(file["count"]) if "count" in file else 0
        except FileNotFoundError:
            raise InputError(f"no reference statistics at {path}") from None
        except Exception as error:  # zipfile, numpy and KeyError each have their own for a damaged archive
            raise InputError(f"{path} holds no reference statistics: {error}") from None
        if mean.ndim != 1 or covariance.shape != 2 * mean.shape:
            given = f"mu {list(mean.shape)} and sigma {list(covariance.shape)}"
            raise InputError(f"{path} holds no reference statistics: {given}; [D] and [D, D] needed")
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise InputError(f"{path} holds no reference statistics: some are not finite")
        return Reference(mean, covariance, count, **said)


def frechet_distance(mean: Array, covariance: Array, other_mean: Array, other_covariance: Array) -> float:
    """|m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)) between two Gaussians.

    The trace of the root is the sum of the roots of the eigenvalues of S^(1/2) S' S^(1/2), which is symmetric: no
    complex square root, no iteration that may not converge.
    """
    root = Reference(mean, covariance, 0, "", "", "").root
    return _distance(mean, covariance, root, other_mean, other_covariance)


def _distance(mean: Array, covariance: Array, root: Array, other_mean: Array, other_covariance: Array) -> float:
    inner = root @ other_covariance @ root
    eigenvalues = np.linalg.eigvalsh((inner + inner.T) / 2)
    cross = np.sqrt(np.maximum(eigenvalues, 0)).sum()
    gap = mean - other_mean
    return float(gap @ gap + np.trace(covariance) + np.trace(other_covariance) - 2 * cross)
