"""Train the dataset's own feature network: a small classifier of its labels, saved with a card."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from stepfront.errors import InputError
from stepfront.files import read_json, write_atomically, write_json
from stepfront.trainers.config import FeatureSettings
from stepfront.trainers.data import ImageData, to_float
from stepfront.trainers.metrics.feature_set import Features, FeatureSet, Progress
from stepfront.trainers.networks.weights import weights_digest
from stepfront.trainers.validation import Settings, validate

CLASSIFIER_WEIGHTS = "classifier.safetensors"
CLASSIFIER_CARD = "classifier.json"


FEATURES_SIZE = 64


def convolutional_body(image_channels: int, resolution: int) -> nn.Sequential:
    """Return convolutions that halve until 4 pixels or fewer remain, with 64 channels at the end."""
    layers: list[nn.Module] = [nn.Conv2d(image_channels, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()]
    channels = 32
    while resolution > 4:
        layers += [nn.Conv2d(channels, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU()]
        channels, resolution = 64, (resolution + 1) // 2
    layers += [nn.Conv2d(channels, FEATURES_SIZE, 3, padding=1), nn.BatchNorm2d(FEATURES_SIZE), nn.ReLU()]
    return nn.Sequential(*layers)


class Classifier(nn.Module):
    """A convolutional body, pooled to 64 features, and a linear read-out."""

    def __init__(self, image_channels: int, resolution: int, classes: int) -> None:
        super().__init__()
        self.body = convolutional_body(image_channels, resolution)
        self.head = nn.Linear(FEATURES_SIZE, classes)

    def features(self, x: Tensor) -> Tensor:
        """Return features [B, 64] of images [B, C, H, W] in [-1, 1]."""
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


def check_labels(data: ImageData) -> None:
    """Raise InputError when the images have no labels, or one class alone, so that no classifier can be trained."""
    if data.labels is None:
        raise InputError(
            "these images have no labels, so no feature classifier can be trained; "
            "give a feature file: features: {name: inception, path: FILE.pt} (TorchScript or torch.export)"
        )
    if len(np.unique(data.labels)) < 2:
        raise InputError(
            "all training images are of one class, so no feature classifier can be trained; set features.name=auto"
        )


def train_classifier(
    data: ImageData, settings: FeatureSettings, directory: Path, progress: Progress = lambda done, total: None
) -> ClassifierCard:
    """Train the feature classifier on the dataset's labels with a fixed seed and save it.

    Raises InputError when the images have no labels, and when the classifier has learnt nothing of them.
    """
    check_labels(data)
    assert data.labels is not None
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        classifier = Classifier(data.channels, data.resolution, data.classes)
        _fit(classifier, data, settings, progress)
    classifier.eval()
    accuracy, recall = _accuracy(classifier, data)
    _check_learnt(recall, data, settings)
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
def _accuracy(classifier: Classifier, data: ImageData) -> tuple[float | None, float | None]:
    """Return the held-out accuracy, and its mean over the classes; None without held-out labels."""
    if data.held_out_labels is None:
        return None, None
    guesses = np.concatenate(
        [
            classifier(to_float(data.held_out_images[first : first + 512])).argmax(1).numpy()
            for first in range(0, len(data.held_out_images), 512)
        ]
    )
    right = guesses == data.held_out_labels
    return float(right.mean()), float(
        np.mean([right[data.held_out_labels == n].mean() for n in set(data.held_out_labels)])
    )


def _check_learnt(recall: float | None, data: ImageData, settings: FeatureSettings) -> None:
    """Refuse a classifier that guesses: its mean recall is within two standard errors of chance.

    Raises InputError unless `features.examine` is warn or skip.
    """
    if recall is None or data.held_out_labels is None:
        return
    kinds, count = len(np.unique(data.held_out_labels)), len(data.held_out_labels)
    chance = 1 / max(kinds, 1)
    if kinds < 2 or recall > chance + 2 * np.sqrt(chance * (1 - chance) / count):
        return
    text = (
        f"the feature classifier has learnt nothing: on {count} held-out images of {kinds} classes its mean recall is "
        f"{recall:.2f}, and chance is {chance:.2f}; use features.name=auto, more features.classifier_epochs, or labels "
        "that the images show"
    )
    if settings.examine == "refuse":
        raise InputError(text)
    logging.getLogger("stepfront").warning("%s", text)


def read_classifier_card(directory: Path) -> ClassifierCard:
    """Read the card of the classifier saved in `directory`."""
    return validate(ClassifierCard, read_json(directory / CLASSIFIER_CARD, "classifier card"))


def classifier_fits(directory: Path, data: ImageData, settings: FeatureSettings) -> bool:
    """Return whether `directory` holds a classifier trained on these images with these settings, and its weights.

    Raises InputError when a file is damaged.
    """
    path = directory / CLASSIFIER_WEIGHTS
    if not (path.is_file() and (directory / CLASSIFIER_CARD).is_file()):
        return False
    card = read_classifier_card(directory)
    wanted = (data.fingerprint, settings.classifier_epochs, settings.seed)
    if (card.data_fingerprint, card.epochs, card.seed) != wanted:
        return False
    if weights_digest(_read_weights(path.read_bytes())) == card.digest:
        return True
    logging.getLogger("stepfront").warning("%s does not belong to %s, so it is made again", path, CLASSIFIER_CARD)
    return False


def load_classifier(content: bytes) -> Classifier:
    """Return the classifier of its saved weights, whose shapes tell its architecture.

    Raises InputError when the bytes are damaged.
    """
    weights = _read_weights(content)
    convolutions = [value for value in weights.values() if value.ndim == 4]
    halvings = len(convolutions) - 2  # all but the first and the last
    classifier = Classifier(weights["body.0.weight"].shape[1], 4 << halvings, len(weights["head.bias"]))
    classifier.load_state_dict(dict(weights))
    return classifier.requires_grad_(False).eval()


def _read_weights(content: bytes) -> Mapping[str, Tensor]:
    try:
        weights: Mapping[str, Tensor] = load(content)
    except (SafetensorError, ValueError) as error:
        raise InputError(f"{CLASSIFIER_WEIGHTS} is not a complete safetensors file: {error}") from None
    return weights


class ClassifierFeatures(FeatureSet):
    """The features of the classifier that is trained on the dataset's own labels."""

    def check(self, data: ImageData) -> None:
        """Raise InputError when the images have no labels."""
        check_labels(data)

    def prepare(self, data: ImageData, directory: Path, progress: Progress) -> None:
        """Train the classifier, unless `directory` holds that of these images and settings."""
        if not classifier_fits(directory, data, self.settings):
            train_classifier(data, self.settings, directory, progress)

    def pack(self, directory: Path) -> bytes:
        """Return the bytes of the weights.  Raises InputError when they are missing or do not belong to their card."""
        path = directory / CLASSIFIER_WEIGHTS
        if not path.is_file():
            raise InputError(f"no feature classifier at {path}; `stepfront train` makes it")
        content = path.read_bytes()
        if weights_digest(_read_weights(content)) != read_classifier_card(directory).digest:
            raise InputError(f"{path} does not belong to {CLASSIFIER_CARD}: the weights' digest differs")
        return content

    def open(self, content: bytes, device: torch.device) -> Features:
        """Return the features of the packed classifier."""
        classifier = load_classifier(content).to(device)
        return lambda levels: classifier.features(levels / 127.5 - 1)
