"""Define the contract of a feature set, and find one by the name in `features.name`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from stepfront.plugins import FEATURES
from stepfront.trainers.config import FeatureSettings
from stepfront.trainers.data import ImageData

Features: TypeAlias = Callable[[Tensor], Tensor]
"""[N, C, H, W] float32, whole numbers of 0..255, on the features' device -> [N, D]."""

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the number of finished steps and of all steps."""


_FILE = "stepfront.trainers.feature_networks.feature_files:FeatureFile"


class FeatureSet(ABC):
    """What Frechet distances are computed on: a network that maps images to rows of features.

    It is made from the settings.  The driver calls `check` before anything is trained, then `prepare` and `pack`.
    Every worker calls `open` with the packed bytes, and needs no other file.

    Scores depend on the features, so the digest of the packed bytes is part of every search.  `pack` must give the
    same bytes for the same features, and other bytes for others: weights, or the version of your code.  `open` must
    give a deterministic function that is finite and treats each image by itself.
    """

    def __init__(self, settings: FeatureSettings) -> None:
        self.settings = settings

    def check(self, data: ImageData) -> None:  # noqa: B027  # most feature sets take all images
        """Raise InputError when these images can't have such features."""

    def prepare(self, data: ImageData, directory: Path, progress: Progress) -> None:  # noqa: B027
        """Make in the supernet's `directory` what is missing there, such as a trained network."""

    @abstractmethod
    def pack(self, directory: Path) -> bytes:
        """Return all that `open` needs.  Raises InputError when a file is missing or damaged."""

    @abstractmethod
    def open(self, content: bytes, device: torch.device) -> Features:
        """Return the feature function on `device`.  Raises InputError when the bytes are damaged."""


def find_feature_set(settings: FeatureSettings) -> FeatureSet:
    """Return the feature set of the settings: one of ours, an entry point's, that of an import path, or a file's.

    Raises InputError when there is none.
    """
    found: FeatureSet = FEATURES.load(_FILE if settings.is_file else settings.name)(settings)
    return found
