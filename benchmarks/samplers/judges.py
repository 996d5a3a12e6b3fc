"""Prepare the judges of a supernet beside it, and open them again without its images."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cifar_resnet import load_cifar_resnet
from stepfront.trainers.config import FeatureSettings
from stepfront.trainers.data import ImageData, blocks, to_float
from stepfront.trainers.metrics.feature_set import Features
from stepfront.trainers.metrics.features import FeatureNetwork, pack_features, prepare_features
from stepfront.trainers.metrics.fid import Moments, Reference

JUDGES = ("degradations", "classifier", "pixels", "resnet20")
"""degradations is what a search takes by itself; classifier and resnet20 know the classes; pixels know nothing."""

MOST_PIXELS = 256
"""Values per image that `pixels` compares; larger images are averaged over squares of pixels."""

RESNET20 = Path("cifar-resnets/resnet20-12fca82f.th")

Judges = dict[str, tuple[FeatureNetwork, Reference]]


def prepare_judge(
    name: str, data: ImageData, directory: Path, folder: Path, device: torch.device, tiny: bool = False
) -> None:
    """Make a judge's network and statistics in `directory`; `folder` holds the weights of resnet20."""
    if name in ("degradations", "classifier"):
        prepare_features(data, _settings(name, len(data.images), tiny), directory, device)
        return
    if name == "resnet20":
        (directory / RESNET20.name).write_bytes((folder / RESNET20).read_bytes())
    features = _fixed_features(name, directory, device)
    moments = Moments.of(features(to_float(part)) for part in blocks(data.images, 500))
    reference = Reference(moments.mean, moments.covariance, moments.count, name, "", data.fingerprint)
    reference.save(directory / f"reference-{name}.npz")


def open_judges(directory: Path, device: torch.device) -> Judges:
    """Return the judges that were prepared, in the order of `JUDGES`."""
    judges = {}
    for name in JUDGES:
        path = directory / f"reference-{name}.npz"
        if path.exists():
            judges[name] = _features(name, directory, device), Reference.load(path)
    return judges


def judge_names(name: str, data: ImageData) -> list[str]:
    """Return the judges that a supernet's images can have."""
    return [judge for judge in JUDGES if judge != "resnet20" or (name.startswith("cifar10") and data.resolution == 32)]


def _settings(name: str, images: int = 0, tiny: bool = False) -> FeatureSettings:
    return FeatureSettings(
        name=name, classifier_epochs=10 if images < 10_000 else 3, training_steps=20 if tiny else 800
    )


def _features(name: str, directory: Path, device: torch.device) -> FeatureNetwork:
    if name in ("degradations", "classifier"):
        return pack_features(_settings(name), directory).unpack(device)
    return _fixed_features(name, directory, device)


def _fixed_features(name: str, directory: Path, device: torch.device) -> FeatureNetwork:
    function: Features = _resnet20(directory / RESNET20.name, device) if name == "resnet20" else few_pixels
    return FeatureNetwork(name, function, device)


def _resnet20(path: Path, device: torch.device) -> Features:
    network = load_cifar_resnet(path).requires_grad_(False).to(device)
    return lambda levels: network(levels / 127.5 - 1)


def few_pixels(levels: Tensor) -> Tensor:
    """Return at most `MOST_PIXELS` values per image, of images averaged over squares of 2, 4, ... pixels."""
    while levels[0].numel() > MOST_PIXELS:
        levels = F.avg_pool2d(levels, 2)
    return levels.flatten(1) / 127.5 - 1
