"""Load the feature network that images are compared by while a sampler is learnt (`learning.distance: features`)."""

from __future__ import annotations

import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.search.problem.problem import SearchProblem
from stepfront.trainers.config import FeatureSettings
from stepfront.trainers.data import to_float
from stepfront.trainers.learning_settings import no_features
from stepfront.trainers.metrics.feature_rows import as_rows
from stepfront.trainers.metrics.feature_set import find_feature_set
from stepfront.trainers.metrics.features import PackedFeatures, check_features, pack_features
from stepfront.trainers.metrics.judges import are_the_same
from stepfront.trainers.sampler_learning.distances import DifferentiableFeatures

FOLDER = "learning_features"
"""Folder in the supernet's directory: these features may be of one kind with a judge's, with other settings."""


def distance_features(problem: SearchProblem) -> PackedFeatures | None:
    """Return the features of `learning.distance`, made where they are missing; None where pixels are compared.

    The search's own features have to be named as `features` names them.  Raises InputError when no features are named,
    when the images can't have them, when they let no gradient through, and when they are the search's own under
    another name.
    """
    learning, own = problem.settings.learning, problem.features
    if not learning.compares_features:
        return None
    name, path = learning.features.name, learning.features.path
    if name is None:
        raise InputError(no_features(learning.distance))
    if problem.decoder is not None:
        raise InputError(
            f"learning.distance: {learning.distance} compares images, and this supernet works on latents; possible: "
            "root, squared"
        )
    if (name, path) == (own.settings.name, own.settings.path):
        packed = own
    else:
        settings = FeatureSettings(name=name, path=path)
        directory = problem.supernet.local / FOLDER
        check_features(problem.data, settings, directory)
        find_feature_set(settings).prepare(problem.data, directory, lambda done, total: None)
        packed = pack_features(settings, directory)
        if are_the_same(own, packed, problem.data):
            raise InputError(
                f"learning.features {name!r} are the search's own features {own.settings.name!r}: a sampler that "
                "learns to match them looks better than it is; give others, or name these as `features` does"
            )
    _check_gradient(packed, to_float(problem.data.images[:2]))
    return packed


def open_for_gradients(packed: PackedFeatures, device: torch.device) -> DifferentiableFeatures:
    """Return features of images [B, C, H, W] in about [-1, 1], which are not rounded: gradients flow through."""
    features = find_feature_set(packed.settings).open(packed.content, device)

    def rows(images: Tensor) -> Tensor:
        return as_rows(features((images.to(device, torch.float32) + 1) * 127.5), len(images), packed.name)

    return rows


def _check_gradient(packed: PackedFeatures, images: Tensor) -> None:
    images = images.clone().requires_grad_()
    rows = open_for_gradients(packed, torch.device("cpu"))(images)
    found = torch.autograd.grad(rows.square().sum(), images, allow_unused=True) if rows.requires_grad else (None,)
    gradient = found[0]
    if gradient is None or not gradient.isfinite().all() or not gradient.any():
        raise InputError(
            f"learning.features {packed.name!r} let no gradient through, so nothing can be learnt from them; give a "
            "network whose forward takes images in [-1, 1] and does not round or detach them"
        )
