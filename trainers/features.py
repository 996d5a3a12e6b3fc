"""Feature networks by name: images in [-1, 1] -> feature rows.

`classifier` is a small network trained on the dataset's own labels; anything else is a TorchScript or torch.export
file.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from trainers.config import FeatureSettings, Settings, validate
from trainers.data import ImageData, to_float
from trainers.errors import InputError
from trainers.fid import Moments, Reference
from trainers.files import read_json, write_atomically, write_json
from trainers.supernet import weights_digest

CLASSIFIER_WEIGHTS = "classifier.safetensors"
CLASSIFIER_CARD = "classifier.json"

Progress = Callable[[int, int], None]


class Classifier(nn.Module):
    """Convolutions that halve until 4 pixels or fewer remain, pooled to 64 features, and a linear read-out."""

    features_size = 64

    def __init__(self, image_channels: int, resolution: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(image_channels, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()]
        channels = 32
        while resolution > 4:
            layers += [nn.Conv2d(channels, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU()]
            channels, resolution = 64, (resolution + 1) // 2
        layers += [nn.Conv2d(channels, self.features_size, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(self.features_size, classes)

    def features(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, 64]."""
        return self.body(x).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class ClassifierCard(Settings):
    """What is saved beside the classifier's weights."""

    image_channels: int
    resolution: int
    classes: int
    data_fingerprint: str
    digest: str
    held_out_accuracy: float | None
    epochs: int
    seed: int


class FeatureNetwork:
    """A named function from images in [-1, 1] to feature rows, on one device."""

    def __init__(self, name: str, network: Callable[[Tensor], Tensor], device: torch.device) -> None:
        self.name, self._network, self._device = name, network, device

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> NDArray[np.float32]:
        """[B, C, H, W] in [-1, 1] -> [B, D].  Values are first rounded to the 256 levels that an image file has."""
        levels = ((images.to(self._device, torch.float32) + 1) * 127.5).round().clamp(0, 255)
        rows = self._network(levels / 127.5 - 1)
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
        if self.card is not None:
            return FeatureNetwork(self.name, self._classifier(self.card).to(device).features, device)
        try:
            if self.suffix == ".pt2":
                return FeatureNetwork(self.name, _load_exported(self.content).to(device), device)
            network = torch.jit.load(BytesIO(self.content), map_location=device).eval()
        except Exception as error:  # both loaders raise a wide range
            line = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise InputError(
                f"the file of features {self.name!r} is neither TorchScript (.pt) nor torch.export (.pt2): {line}"
            ) from None
        return FeatureNetwork(self.name, network, device)

    def _classifier(self, card: ClassifierCard) -> Classifier:
        try:
            weights = load(self.content)
        except (SafetensorError, ValueError) as error:
            raise InputError(f"{CLASSIFIER_WEIGHTS} is not a whole safetensors file: {error}") from None
        if weights_digest(weights) != card.digest:
            raise InputError(f"{CLASSIFIER_WEIGHTS} does not belong to {CLASSIFIER_CARD}: the weights' digest differs")
        classifier = Classifier(card.image_channels, card.resolution, card.classes)
        classifier.load_state_dict(weights)
        return classifier.requires_grad_(False).eval()


def _load_exported(content: bytes) -> nn.Module:
    """The network of a torch.export file that holds tensors and a graph.

    torch.export.load on its own unpickles any object and loads compiled libraries; both are refused here.  It still
    evaluates the graph's symbolic sizes as expressions, so the file must come from someone who is trusted.
    """
    with zipfile.ZipFile(BytesIO(content)) as archive:
        for name in archive.namelist():
            if any(part in name for part in ("data/aotinductor/", "constants/opaque_obj", "constants/custom_obj")):
                raise ValueError(f"it holds more than tensors and a graph: {name}")
    with _only_tensors_unpickled():
        return torch.export.load(BytesIO(content)).module()


@contextmanager
def _only_tensors_unpickled() -> Iterator[None]:
    # The one switch that torch has for this; torch.export passes weights_only=False whatever its caller wants.
    switch = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(switch)
    os.environ[switch] = "1"
    try:
        yield
    finally:
        del os.environ[switch]
        if before is not None:
            os.environ[switch] = before


def pack_features(settings: FeatureSettings, directory: Path) -> PackedFeatures:
    """The feature network of the settings: the user's file, or the classifier saved in `directory`."""
    path = Path(settings.path) if settings.path is not None else directory / CLASSIFIER_WEIGHTS
    if not path.is_file():
        raise InputError(f"no feature file at {path}")
    card = None
    if settings.path is None:
        card = validate(ClassifierCard, read_json(directory / CLASSIFIER_CARD, "classifier card"))
    return PackedFeatures(settings.name, path.read_bytes(), path.suffix, card)


def check_features(data: ImageData, settings: FeatureSettings) -> None:
    """InputError when the settings' features can't be had, before anything is trained for nothing."""
    if settings.path is not None and not Path(settings.path).is_file():
        raise InputError(f"no feature file at {settings.path}")
    if settings.path is None and data.labels is None:
        raise InputError(
            "these images have no labels, so no feature classifier can be trained; "
            "give a feature file: features: {name: inception, path: FILE.pt} (TorchScript or torch.export)"
        )


def train_classifier(
    data: ImageData, settings: FeatureSettings, directory: Path, progress: Progress = lambda done, total: None
) -> ClassifierCard:
    """Trains the feature classifier on the dataset's labels with a fixed seed and saves it.

    Raises InputError when the images have no labels.
    """
    check_features(data, settings)
    assert data.labels is not None
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        classifier = Classifier(data.channels, data.resolution, data.classes)
        _fit(classifier, data, settings, progress)
    classifier.eval()
    accuracy = _accuracy(classifier, data)
    weights = {name: value.contiguous() for name, value in classifier.state_dict().items()}
    card = ClassifierCard(
        image_channels=data.channels,
        resolution=data.resolution,
        classes=data.classes,
        data_fingerprint=data.fingerprint,
        digest=weights_digest(weights),
        held_out_accuracy=accuracy,
        epochs=settings.classifier_epochs,
        seed=settings.seed,
    )
    write_atomically(directory / CLASSIFIER_WEIGHTS, lambda path: save_file(weights, path))
    write_json(directory / CLASSIFIER_CARD, card.model_dump(mode="json"))
    return card


def _fit(classifier: Classifier, data: ImageData, settings: FeatureSettings, progress: Progress) -> None:
    assert data.labels is not None
    batch = 128
    per_epoch = max(1, len(data.images) // batch)
    total = settings.classifier_epochs * per_epoch
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=total)
    labels = torch.from_numpy(data.labels)
    for epoch in range(settings.classifier_epochs):
        order = torch.randperm(len(data.images))
        for i in range(per_epoch):
            rows = order[i * batch : (i + 1) * batch]
            loss = F.cross_entropy(classifier(to_float(data.images[rows.numpy()])), labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            progress(epoch * per_epoch + i + 1, total)


@torch.inference_mode()
def _accuracy(classifier: Classifier, data: ImageData) -> float | None:
    if data.held_out_labels is None:
        return None
    right = 0
    for first in range(0, len(data.held_out_images), 512):
        guesses = classifier(to_float(data.held_out_images[first : first + 512])).argmax(1).numpy()
        right += int((guesses == data.held_out_labels[first : first + 512]).sum())
    return right / len(data.held_out_images)


def prepare_features(
    data: ImageData,
    settings: FeatureSettings,
    directory: Path,
    device: torch.device,
    progress: Progress = lambda done, total: None,
) -> tuple[PackedFeatures, Reference]:
    """The feature network and the reference statistics of `data`, made and saved in `directory` where they are absent
    or were made from other data."""
    if settings.path is None and not _classifier_fits(directory, data, settings):
        train_classifier(data, settings, directory, progress)
    packed = pack_features(settings, directory)
    path = directory / f"reference-{settings.name}.npz"
    if path.exists():
        reference = Reference.load(path)
        if (reference.data_fingerprint, reference.digest) == (data.fingerprint, packed.digest):
            return packed, reference
    reference = make_reference(data, packed, device)
    reference.save(path)
    return packed, reference


def _classifier_fits(directory: Path, data: ImageData, settings: FeatureSettings) -> bool:
    if not (directory / CLASSIFIER_CARD).exists():
        return False
    card = validate(ClassifierCard, read_json(directory / CLASSIFIER_CARD, "classifier card"))
    wanted = (data.fingerprint, settings.classifier_epochs, settings.seed)
    return (card.data_fingerprint, card.epochs, card.seed) == wanted


def make_reference(data: ImageData, packed: PackedFeatures, device: torch.device, batch: int = 500) -> Reference:
    """Statistics of the training images under the features."""
    features = packed.unpack(device)
    batches = (features(to_float(data.images[first : first + batch])) for first in range(0, len(data.images), batch))
    moments = Moments.of(batches)
    return Reference(moments.mean, moments.covariance, moments.count, packed.name, packed.digest, data.fingerprint)
