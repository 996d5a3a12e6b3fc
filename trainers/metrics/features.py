"""Run feature networks on images, and take the statistics of the real images under them."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stepfront.errors import InputError, first_line
from stepfront.plugins import FEATURES
from stepfront.trainers.config import FeatureSettings
from stepfront.trainers.data import ImageData, blocks, to_float
from stepfront.trainers.metrics.feature_rows import PROBE_SIZES, as_rows, try_features
from stepfront.trainers.metrics.feature_set import Features, Progress, find_feature_set
from stepfront.trainers.metrics.fid import Moments, Reference
from stepfront.trainers.metrics.real_features import Draw, RealFeatures

_FEWEST_REAL = 16


class FeatureNetwork:
    """A named function from images in [-1, 1] to feature rows, on one device."""

    def __init__(self, name: str, features: Features, device: torch.device) -> None:
        self.name, self._features, self._device = name, features, device

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> NDArray[np.float32]:
        """Return rows [B, D] of images [B, C, H, W] in [-1, 1], first rounded to the 256 levels of an image file.

        Raises InputError when the features are not one row per image.
        """
        levels = ((images.to(self._device, torch.float32) + 1) * 127.5).round().clamp(0, 255)
        return as_rows(self._features(levels), len(images), self.name).cpu().numpy()


@dataclass(frozen=True)
class PackedFeatures:
    """A feature network as bytes, so that a worker on another machine needs no file of the driver's.

    `against` names statistics that are not known to be those of the data; it becomes part of the name.
    """

    settings: FeatureSettings
    content: bytes
    against: str = ""

    @property
    def name(self) -> str:
        """The name of the features in tables."""
        return f"{self.settings.name} against {self.against}" if self.against else self.settings.name

    @cached_property
    def digest(self) -> str:
        """The sha256 of the content, which differs between two networks of one name."""
        return hashlib.sha256(self.content).hexdigest()

    def unpack(self, device: torch.device) -> FeatureNetwork:
        """Return the feature network on `device`.  Raises InputError when the bytes are damaged."""
        return FeatureNetwork(self.name, find_feature_set(self.settings).open(self.content, device), device)


@dataclass(frozen=True)
class Judge:
    """What gives images a score: a feature network, and the statistics of real images under it."""

    features: PackedFeatures
    reference: Reference


def pack_features(settings: FeatureSettings, directory: Path) -> PackedFeatures:
    """Pack the feature network of the settings; `directory` holds what was prepared for the dataset."""
    return PackedFeatures(settings, find_feature_set(settings).pack(directory))


def check_features(data: ImageData, settings: FeatureSettings, directory: Path | None = None) -> None:
    """Raise InputError when these images can't have the settings' features, before anything is trained.

    Features from a file, and those that are not part of the package, are tried on a few images.  The latter are
    prepared for it in `directory`, where they are used later; None: in a temporary folder.
    """
    try:
        with contextlib.ExitStack() as stack:
            place = directory or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            _check_and_try(data, settings, place)
    except InputError:
        raise
    except Exception as error:  # a user's code may raise anything
        raise InputError(
            f"features {settings.name!r} fail ({type(error).__name__}: {first_line(error)}); a feature set is a class "
            "derived from FeatureSet (docs/plugins.md)"
        ) from error


def _check_and_try(data: ImageData, settings: FeatureSettings, directory: Path) -> None:
    feature_set = find_feature_set(settings)
    feature_set.check(data)
    if settings.is_file:
        packed = pack_features(settings, Path())
    elif settings.name not in FEATURES.ours:
        directory.mkdir(parents=True, exist_ok=True)  # a user's code writes to it
        feature_set.prepare(data, directory, lambda done, total: None)
        packed = pack_features(settings, directory)
    else:
        return
    width = _width(packed, data, torch.device("cpu"))
    if settings.reference is not None:
        _check_reference(Reference.load(Path(settings.reference)), packed, width, settings.reference)


def _width(packed: PackedFeatures, data: ImageData, device: torch.device) -> int:
    """Return the number of features per image.

    Raises InputError when the network can't take such images, and when what it gives can't serve as features.
    """
    features, images = packed.unpack(device), data.images[: max(PROBE_SIZES)]
    try:
        return try_features(features, to_float(images), packed.name)
    except InputError:
        raise
    except Exception as error:  # what TorchScript, torch.export or a user's code may raise; the last line is the reason
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
    """Return the feature network and the reference statistics.

    The statistics are those of the settings' file, or those of `data`.  The latter are made and saved in `directory`
    where they are missing or were made from other data.
    """
    find_feature_set(settings).prepare(data, directory, progress)
    packed = pack_features(settings, directory)
    if not settings.is_file and settings.name not in FEATURES.ours:
        _width(packed, data, device)  # a file was tried by check_features
    if settings.reference is not None:
        return _with_reference(data, packed, Path(settings.reference), device)
    path = _saved_path(directory, "reference", settings.name)
    if path.exists():
        reference = Reference.load(path)
        if (reference.data_fingerprint, reference.digest) == (data.fingerprint, packed.digest):
            return packed, reference
    draw = Draw(len(data.images), settings.real_images)
    reference = make_reference(data, packed, device, draw=draw)
    _save_drawn(draw, data, packed, _saved_path(directory, "real", settings.name))
    reference.save(path)
    return packed, reference


def _with_reference(
    data: ImageData, packed: PackedFeatures, path: Path, device: torch.device
) -> tuple[PackedFeatures, Reference]:
    """Return the statistics in a file.

    Unless they are known to be those of `data`, the features' name tells which they are, because scores against one
    file do not compare with scores against another.
    """
    reference = Reference.load(path)
    _check_reference(reference, packed, _width(packed, data, device), path)
    if reference.digest and reference.data_fingerprint == data.fingerprint:
        return packed, reference
    unknown = "" if reference.data_fingerprint else ", unknown images"
    return replace(packed, against=f"{path.stem} ({reference.content[:8]}{unknown})"), reference


def make_reference(
    data: ImageData, packed: PackedFeatures, device: torch.device, batch: int = 500, draw: Draw | None = None
) -> Reference:
    """Return the statistics of the training images under the features; `draw` takes its rows on the way."""
    features = packed.unpack(device)

    def batches() -> Iterator[NDArray[np.float32]]:
        for number, images in enumerate(blocks(data.images, batch)):
            rows = features(to_float(images))
            if draw is not None:
                draw.take(number * batch, rows)
            yield rows

    moments = Moments.of(batches())
    _check_usable(moments, packed.name)
    return Reference(moments.mean, moments.covariance, moments.count, packed.name, packed.digest, data.fingerprint)


def _check_usable(moments: Moments, name: str) -> None:
    """Raise InputError for features of real images that are not finite, or that are the same for all of them."""
    if not np.isfinite(moments.mean).all():
        raise InputError(f"features {name!r} are not finite on real images; give other features")
    if not np.trace(moments.covariance) > 0:
        raise InputError(f"features {name!r} are constant: all images have the same; give other features")


def real_features(
    data: ImageData,
    packed: PackedFeatures,
    reference: Reference,
    directory: Path,
    device: torch.device,
) -> NDArray[np.float32] | None:
    """Return rows [N, D] of at most `features.real_images` training images.

    They are made and saved in `directory` where they are missing or were made from other data.  The result is None
    where the reference is not known to be that of `data`, and where the images are too few.
    """
    wanted = min(packed.settings.real_images, len(data.images))
    if (reference.data_fingerprint, reference.digest) != (data.fingerprint, packed.digest) or wanted < _FEWEST_REAL:
        return None
    path = _saved_path(directory, "real", packed.settings.name)
    if path.exists():
        saved = RealFeatures.load(path)
        if (saved.data_fingerprint, saved.digest) == (data.fingerprint, packed.digest) and len(saved.rows) >= wanted:
            return saved.rows[:wanted]
    draw = Draw(len(data.images), wanted)
    features, batch = packed.unpack(device), 500
    drawn = [features(to_float(data.images[draw.chosen[i : i + batch]])) for i in range(0, wanted, batch)]
    draw.rows = np.concatenate(drawn)
    _save_drawn(draw, data, packed, path)
    return draw.rows


def _save_drawn(draw: Draw, data: ImageData, packed: PackedFeatures, path: Path) -> None:
    assert draw.rows is not None
    RealFeatures(draw.rows, packed.digest, data.fingerprint).save(path)


def _saved_path(directory: Path, what: str, name: str) -> Path:
    return directory / f"{what}-{name.replace(':', '-')}.npz"  # an import path has a colon
