"""The dataset's own feature network: a small classifier trained on its labels, and the card that is saved beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from stepfront.errors import InputError
from stepfront.files import read_json, write_atomically, write_json
from stepfront.trainers.config import FeatureSettings, Settings, validate
from stepfront.trainers.data import ImageData, to_float
from stepfront.trainers.networks.weights import weights_digest

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


def check_labels(data: ImageData) -> None:
    """InputError when no classifier can be trained on these images."""
    if data.labels is None:
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
    check_labels(data)
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


def read_classifier_card(directory: Path) -> ClassifierCard:
    """The card of the classifier saved in `directory`."""
    return validate(ClassifierCard, read_json(directory / CLASSIFIER_CARD, "classifier card"))


def classifier_fits(directory: Path, data: ImageData, settings: FeatureSettings) -> bool:
    """Whether `directory` holds a classifier trained on these images with these settings."""
    if not (directory / CLASSIFIER_CARD).exists():
        return False
    card = read_classifier_card(directory)
    wanted = (data.fingerprint, settings.classifier_epochs, settings.seed)
    return (card.data_fingerprint, card.epochs, card.seed) == wanted


def load_classifier(content: bytes, card: ClassifierCard) -> Classifier:
    """The classifier from the bytes of its weights.  InputError when they are damaged or belong to another card."""
    try:
        weights = load(content)
    except (SafetensorError, ValueError) as error:
        raise InputError(f"{CLASSIFIER_WEIGHTS} is not a complete safetensors file: {error}") from None
    if weights_digest(weights) != card.digest:
        raise InputError(f"{CLASSIFIER_WEIGHTS} does not belong to {CLASSIFIER_CARD}: the weights' digest differs")
    classifier = Classifier(card.image_channels, card.resolution, card.classes)
    classifier.load_state_dict(weights)
    return classifier.requires_grad_(False).eval()
