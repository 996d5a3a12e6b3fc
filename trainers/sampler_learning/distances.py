"""Measure how far a student's images are from its teacher's, one number per image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stepfront.errors import InputError

Distance = Callable[[Tensor, Tensor], Tensor]
"""Student's and teacher's images, both [B, ...] -> distance per image, [B]."""

DifferentiableFeatures = Callable[[Tensor], Tensor]
"""Images [B, C, H, W] in about [-1, 1] -> features [B, ...] that gradients flow through."""


def squared_error(images: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared difference of the values of each image, [B]."""
    return (images - targets).flatten(1).square().mean(dim=1)


def root_of_squared_error(images: Tensor, targets: Tensor) -> Tensor:
    """Return the root of the mean squared difference of each image, [B].

    A student of few steps can't follow every pair: some end at another image.  Squares would make those few decide, and
    their best compromise is a blur between both images.
    """
    return (squared_error(images, targets) + 1e-6).sqrt()


def make_distance(name: str, targets: Tensor, features: DifferentiableFeatures | None) -> Distance:
    """Return the distance of this name: root, squared, features, or both.

    Features are compared in units of their variance over the teacher's images `targets`; `both` is the sum of the two
    in such units.  Raises InputError when features are needed and not given.
    """
    if name == "squared":
        return squared_error
    if name == "root":
        return root_of_squared_error
    if features is None:
        raise InputError(f"learning.distance: {name} needs a feature network; give one, or use squared")
    network = features
    with torch.no_grad():
        feature_scale = _variance(network(targets))
        pixel_scale = _variance(targets)

    def in_features(images: Tensor, others: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = network(others)
        return squared_error(network(images), wanted) / feature_scale

    if name == "features":
        return in_features
    return lambda images, others: in_features(images, others) + squared_error(images, others) / pixel_scale


def _variance(rows: Tensor) -> Tensor:
    return rows.flatten(1).var(dim=0, correction=0).mean().clamp_min(1e-12)
