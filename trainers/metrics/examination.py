"""Examine a feature set on known harm before its scores are believed.

Held-out real images are scored as they are, which is the floor, and harmed in five ways at five strengths.  A judge
whose score does not rise with the harm, or whose features vary in one direction alone, is not believed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.data import ImageData, to_float
from stepfront.trainers.metrics.features import FeatureNetwork
from stepfront.trainers.metrics.fid import Moments, Reference
from stepfront.trainers.metrics.harm import HARMS, harm_images

STRENGTHS = (0.1, 0.2, 0.4, 0.6, 1.0)
FEWEST_IMAGES = 32
"""Held-out images that an examination needs: two draws of 16."""

_MOST_IMAGES = 512
_DRAWS = 2
_LEAST_RATIO = 2.0
_LEAST_TAU = 0.6
CLEAR = 0.4
"""Strength from which every harm must score above the floor."""


@dataclass(frozen=True)
class Examination:
    """How a feature set scores real images and harmed ones.

    `ratio` is the participation ratio of the features' covariance: 1 means that one direction holds all variance.
    `floor` is the distance of unharmed held-out images, `spread` the standard deviation of two draws of them, `scores`
    the mean distance per harm, one per strength.  `failures` say in words what is wrong; empty means passed.
    """

    features: str
    dimensions: int
    ratio: float
    images: int
    floor: float
    spread: float
    scores: Mapping[str, Sequence[float]]
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the feature set may judge."""
        return not self.failures

    @property
    def summary(self) -> str:
        """One line: the verdict, how many directions the features have, and the score of real images."""
        verdict = "passed" if self.passed else f"failed: {'; '.join(self.failures)}"
        return (
            f"{self.features} {verdict}; {self.dimensions} features, participation ratio {self.ratio:.1f}, "
            f"{self.images} real images score {self.floor:.3g}"
        )


def examine(features: FeatureNetwork, reference: Reference, data: ImageData, seed: int = 0) -> Examination:
    """Score real and harmed held-out images.  Raises InputError when there are too few of them, or for NaN features."""
    draws = _draws(data, seed)
    images = len(draws[0])
    floors = [_distance(features, reference, draw) for draw in draws]
    floor, spread = float(np.mean(floors)), float(np.std(floors, ddof=1))
    scores = {
        harm: [
            float(np.mean([_distance(features, reference, harm_images(draw, harm, strength, seed)) for draw in draws]))
            for strength in STRENGTHS
        ]
        for harm in HARMS
    }
    ratio = participation_ratio(reference.covariance)
    failures = _failures(ratio, floor, scores)
    return Examination(features.name, len(reference.mean), ratio, images, floor, spread, scores, failures)


def participation_ratio(covariance: NDArray[np.float64]) -> float:
    """Return (sum of eigenvalues)^2 / (sum of their squares): in how many directions the variance lies.

    Raises InputError when there is no variance at all.
    """
    total, squares = float(np.trace(covariance)), float(np.square(covariance).sum())
    if not squares > 0:
        raise InputError("the features are constant: all images have the same; give other features")
    return total**2 / squares


def check_enough_images(data: ImageData) -> None:
    """Raise InputError when too few images are held out for an examination."""
    count = len(data.held_out_images)
    if count < FEWEST_IMAGES:
        raise InputError(
            f"a judge is examined on {FEWEST_IMAGES} held-out images or more, and there are {count}; hold out more "
            "(data.held_out), give more images, or set features.examine=skip"
        )


def _draws(data: ImageData, seed: int) -> list[Tensor]:
    check_enough_images(data)
    count = len(data.held_out_images)
    order = np.random.default_rng(seed).permutation(count)
    each = min(_MOST_IMAGES, count // _DRAWS)
    return [to_float(data.held_out_images[np.sort(order[i * each : (i + 1) * each])]) for i in range(_DRAWS)]


def _distance(features: FeatureNetwork, reference: Reference, images: Tensor) -> float:
    rows = [features(batch) for batch in torch.split(images, 500)]
    if not all(np.isfinite(part).all() for part in rows):
        raise InputError(f"features {features.name!r} are not finite on real images; give other features")
    return reference.distance(Moments.of(rows))


def _failures(ratio: float, floor: float, scores: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    found = []
    if ratio < _LEAST_RATIO:
        found.append(f"most variance of its features lies in one direction (participation ratio {ratio:.1f})")
    clear = STRENGTHS.index(CLEAR)
    for harm, given in scores.items():
        if min(given[clear:]) <= floor:
            found.append(f"{harm} of strength {CLEAR} or more scores {min(given[clear:]):.3g}, below real images")
        elif _tau([floor, *given]) < _LEAST_TAU:
            found.append(f"its score does not rise with the strength of {harm}")
    return tuple(found)


def _tau(values: Sequence[float]) -> float:
    """Return Kendall's tau of the values with their order."""
    signs = np.sign(np.subtract.outer(values, values))[np.tril_indices(len(values), -1)]
    return float(signs.mean())
