"""Feature networks by name: images in [-1, 1] -> feature rows; and the statistics of the real images under them.

`classifier` is a small network trained on the dataset's own labels; anything else is a feature file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.config import FeatureSettings
from stepfront.trainers.data import ImageData, blocks, to_float
from stepfront.trainers.metrics.classifier import (
    CLASSIFIER_WEIGHTS,
    ClassifierCard,
    Progress,
    check_labels,
    classifier_fits,
    load_classifier,
    read_classifier_card,
    train_classifier,
)
from stepfront.trainers.metrics.feature_files import Features, open_feature_file
from stepfront.trainers.metrics.fid import Moments, Reference
from stepfront.trainers.metrics.real_features import Draw, RealFeatures

_FEW = 16  # images


class FeatureNetwork:
    """A named function from images in [-1, 1] to feature rows, on one device."""

    def __init__(self, name: str, features: Features, device: torch.device) -> None:
        self.name, self._features, self._device = name, features, device

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> NDArray[np.float32]:
        """[B, C, H, W] in [-1, 1] -> [B, D].  Values are first rounded to the 256 levels that an image file has."""
        levels = ((images.to(self._device, torch.float32) + 1) * 127.5).round().clamp(0, 255)
        rows = self._features(levels)
        if rows.ndim != 2:
            raise InputError(f"features {self.name!r} gave {rows.ndim} axes; rows [images, features] are needed")
        return rows.float().cpu().numpy()


@dataclass(frozen=True)
class PackedFeatures:
    """A feature network as bytes, so that a worker on another machine needs no file of ours."""

    name: str
    content: bytes
    suffix: str
    card: ClassifierCard | None = None

    @property
    def digest(self) -> str:
        """sha256 of the content: two networks of one name are told apart."""
        return hashlib.sha256(self.content).hexdigest()

    def unpack(self, device: torch.device) -> FeatureNetwork:
        """The feature network on `device`.  InputError when the bytes are not what their name says."""
        if self.card is None:
            return FeatureNetwork(self.name, open_feature_file(self.name, self.content, self.suffix, device), device)
        classifier = load_classifier(self.content, self.card).to(device)
        return FeatureNetwork(self.name, lambda levels: classifier.features(levels / 127.5 - 1), device)


def pack_features(settings: FeatureSettings, directory: Path) -> PackedFeatures:
    """The feature network of the settings: the user's file, or the classifier saved in `directory`."""
    path = Path(settings.path) if settings.path is not None else directory / CLASSIFIER_WEIGHTS
    if not path.is_file():
        raise InputError(f"no feature file at {path}")
    card = read_classifier_card(directory) if settings.path is None else None
    return PackedFeatures(settings.name, path.read_bytes(), path.suffix, card)


def check_features(data: ImageData, settings: FeatureSettings) -> None:
    """InputError when the settings' features can't be had of these images, before anything is trained for nothing."""
    if settings.path is None:
        check_labels(data)
        return
    packed = pack_features(settings, Path())
    width = _width(packed, data, torch.device("cpu"))
    if settings.reference is not None:
        _check_reference(Reference.load(Path(settings.reference)), packed, width, settings.reference)


def _width(packed: PackedFeatures, data: ImageData, device: torch.device) -> int:
    """How many features an image has.  InputError when the network can't take such images."""
    features, images = packed.unpack(device), data.images[:2]
    try:
        return features(to_float(images)).shape[1]
    except (RuntimeError, AssertionError) as error:  # TorchScript and torch.export; the last line is the reason
        shape = "x".join(map(str, images.shape[1:]))
        line = next(iter(reversed(str(error).strip().splitlines())), "")
        raise InputError(f"features {packed.name!r} can't take images of {shape}: {line}") from None


def _check_reference(reference: Reference, packed: PackedFeatures, width: int, path: Path | str) -> None:
    if reference.digest not in ("", packed.digest):
        raise InputError(f"{path} was made with other features ({reference.features!r}) than {packed.name!r}")
    if len(reference.mean) != width:
        raise InputError(
            f"{path} has statistics of {len(reference.mean)} features, but {packed.name!r} gives {width} an image"
        )


def prepare_features(
    data: ImageData,
    settings: FeatureSettings,
    directory: Path,
    device: torch.device,
    progress: Progress = lambda done, total: None,
) -> tuple[PackedFeatures, Reference]:
    """The feature network and the reference statistics: those of the settings' file, or those of `data`, made and saved
    in `directory` where they are absent or were made from other data."""
    if settings.path is None and not classifier_fits(directory, data, settings):
        train_classifier(data, settings, directory, progress)
    packed = pack_features(settings, directory)
    if settings.reference is not None:
        return _with_reference(data, packed, Path(settings.reference), device)
    path = directory / f"reference-{settings.name}.npz"
    if path.exists():
        reference = Reference.load(path)
        if (reference.data_fingerprint, reference.digest) == (data.fingerprint, packed.digest):
            return packed, reference
    draw = Draw(len(data.images), settings.real_images)
    reference = make_reference(data, packed, device, draw=draw)
    _keep_drawn(draw, data, packed, _drawn_path(directory, settings.name))
    reference.save(path)
    return packed, reference


def _with_reference(
    data: ImageData, packed: PackedFeatures, path: Path, device: torch.device
) -> tuple[PackedFeatures, Reference]:
    """The statistics in a file.  Unless they are known to be those of `data`, the features' name says what they are:
    scores against one file do not compare with scores against another."""
    reference = Reference.load(path)
    _check_reference(reference, packed, _width(packed, data, device), path)
    if reference.digest and reference.data_fingerprint == data.fingerprint:
        return packed, reference
    unknown = "" if reference.data_fingerprint else ", unknown images"
    return replace(packed, name=f"{packed.name} against {path.stem} ({reference.content[:8]}{unknown})"), reference


def make_reference(
    data: ImageData, packed: PackedFeatures, device: torch.device, batch: int = 500, draw: Draw | None = None
) -> Reference:
    """Statistics of the training images under the features; `draw` takes the rows that it wants on the way."""
    features = packed.unpack(device)

    def batches() -> Iterator[NDArray[np.float32]]:
        for number, images in enumerate(blocks(data.images, batch)):
            rows = features(to_float(images))
            if draw is not None:
                draw.take(number * batch, rows)
            yield rows

    moments = Moments.of(batches())
    return Reference(moments.mean, moments.covariance, moments.count, packed.name, packed.digest, data.fingerprint)


def real_features(
    data: ImageData,
    packed: PackedFeatures,
    reference: Reference,
    settings: FeatureSettings,
    directory: Path,
    device: torch.device,
) -> NDArray[np.float32] | None:
    """Rows [N, D] of at most `settings.real_images` training images, made and saved in `directory` where they are not
    there or were made from other data.

    None where the reference is of other images than `data`, or does not say, and where the images are too few.
    """
    wanted = min(settings.real_images, len(data.images))
    if (reference.data_fingerprint, reference.digest) != (data.fingerprint, packed.digest) or wanted < _FEW:
        return None
    path = _drawn_path(directory, settings.name)
    if path.exists():
        kept = RealFeatures.load(path)
        if (kept.data_fingerprint, kept.digest) == (data.fingerprint, packed.digest) and len(kept.rows) >= wanted:
            return kept.rows[:wanted]
    draw = Draw(len(data.images), wanted)
    features, batch = packed.unpack(device), 500
    drawn = [features(to_float(data.images[draw.chosen[i : i + batch]])) for i in range(0, wanted, batch)]
    draw.rows = np.concatenate(drawn)
    _keep_drawn(draw, data, packed, path)
    return draw.rows


def _keep_drawn(draw: Draw, data: ImageData, packed: PackedFeatures, path: Path) -> None:
    assert draw.rows is not None
    RealFeatures(draw.rows, packed.digest, data.fingerprint).save(path)


def _drawn_path(directory: Path, name: str) -> Path:
    return directory / f"real-{name}.npz"
