"""Train a small network to see what people see: degradations, rotations, and kinds of images.

The tasks need nothing but the images: which harm was done and how strongly, and by how many quarter turns an image was
rotated.  A third is which of 16 clusters of the dataset it belongs to, within its class where there are labels.  A
classifier alone only sees what separates the classes; docs/judges.md compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from stepfront.errors import InputError
from stepfront.trainers.data import ImageData, to_float
from stepfront.trainers.feature_networks.classifier import FEATURES_SIZE, convolutional_body
from stepfront.trainers.feature_networks.network_files import holds_network, read_network, save_network
from stepfront.trainers.metrics.feature_set import Features, FeatureSet, Progress
from stepfront.trainers.metrics.harm import HARMS

WEIGHTS, CARD = "degradations.safetensors", "degradations.json"
KINDS = 16
_BATCH = 128
_LEAST_STRENGTH = 0.05
_MOST_FOR_CLUSTERS = 10_000


class DegradationNetwork(nn.Module):
    """A convolutional body pooled to 64 features, and one linear head per task."""

    def __init__(self, image_channels: int, resolution: int, kinds: int) -> None:
        super().__init__()
        self.body = convolutional_body(image_channels, resolution)
        self.harm = nn.Linear(FEATURES_SIZE, len(HARMS) + 1)
        self.strength = nn.Linear(FEATURES_SIZE, 1)
        self.turns = nn.Linear(FEATURES_SIZE, 4)
        self.kind = nn.Linear(FEATURES_SIZE, kinds)

    def features(self, x: Tensor) -> Tensor:
        """Return features [B, 64] of images [B, C, H, W] in [-1, 1]."""
        return self.body(x).mean(dim=(2, 3))


class DegradationFeatures(FeatureSet):
    """Features of a network that is trained on the dataset's own images to tell harm, rotation and kind."""

    def prepare(self, data: ImageData, directory: Path, progress: Progress) -> None:
        """Train the network with a fixed seed, unless `directory` holds that of these images and settings."""
        steps, seed = self.settings.training_steps, self.settings.seed
        made_from = {"fingerprint": data.fingerprint, "seed": seed, "steps": steps, "kinds": KINDS}
        if holds_network(directory / WEIGHTS, directory / CARD, made_from):
            return
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = train_network(data, steps, seed, progress)
        save_network(directory / WEIGHTS, directory / CARD, network.state_dict(), made_from)

    def pack(self, directory: Path) -> bytes:
        """Return the bytes of the weights.  Raises InputError when they are missing or do not belong to their card."""
        return read_network(directory / WEIGHTS, directory / CARD)

    def open(self, content: bytes, device: torch.device) -> Features:
        """Return the pooled features of the body.  Raises InputError when the bytes are damaged."""
        weights = _read_weights(content)
        halvings = sum(value.ndim == 4 for value in weights.values()) - 2  # all convolutions but the first and the last
        channels, kinds = weights["body.0.weight"].shape[1], len(weights["kind.bias"])
        with torch.random.fork_rng():  # first weights are drawn, and replaced at once
            network = DegradationNetwork(channels, 4 << halvings, kinds)
        network.load_state_dict(dict(weights))
        network.requires_grad_(False).eval().to(device)
        return lambda levels: network.features(levels / 127.5 - 1)


def train_network(data: ImageData, steps: int, seed: int, progress: Progress) -> DegradationNetwork:
    """Train on harmed, rotated training images with a one-cycle rate; the caller seeds the first weights."""
    kinds = torch.from_numpy(kinds_of(data, seed))
    network = DegradationNetwork(data.channels, data.resolution, int(kinds.max()) + 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        rows = torch.randint(len(data.images), (_BATCH,), generator=generator)
        x, turns = _rotated(to_float(data.images[rows.numpy()]), generator)
        x, harm, strength = _harmed(x, generator)
        features = network.features(x)
        loss = (
            F.cross_entropy(network.harm(features), harm)
            + 2 * F.mse_loss(network.strength(features)[:, 0], strength)
            + F.cross_entropy(network.turns(features), turns)
            + F.cross_entropy(network.kind(features), kinds[rows])
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        progress(step + 1, steps)
    return network.eval()


def _rotated(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rotate each image by a random number of quarter turns; return images and turns [B]."""
    turns = torch.randint(4, (len(x),), generator=generator)
    x = x.clone()
    for count in (1, 2, 3):
        chosen = turns == count
        x[chosen] = torch.rot90(x[chosen], count, (2, 3))
    return x, turns


def _harmed(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Harm each image in a random way, or not; return images, the harm's number [B] (0: none) and its strength [B]."""
    harm = torch.randint(len(HARMS) + 1, (len(x),), generator=generator)
    strength = torch.rand(len(x), generator=generator).clamp_min(_LEAST_STRENGTH)
    x = x.clone()
    for number, apply in enumerate(HARMS.values(), start=1):
        chosen = harm == number
        if chosen.any():
            x[chosen] = apply(x[chosen], strength[chosen], generator)
    return x, harm, torch.where(harm == 0, 0.0, strength)


def kinds_of(data: ImageData, seed: int) -> NDArray[np.int64]:
    """Return a number in 0 ... for each training image: its class and its cluster within the class, 16 kinds in all.

    With 9 classes or more the kinds are the classes.  Without labels they are clusters of all images.
    """
    labels = np.zeros(len(data.images), np.int64) if data.labels is None else np.asarray(data.labels, np.int64)
    classes = np.unique(labels)
    each = max(1, KINDS // len(classes))
    kinds = np.zeros(len(labels), np.int64)
    for number, label in enumerate(classes):
        rows = np.flatnonzero(labels == label)
        kinds[rows] = number * each + _clusters(data.images[rows], min(each, max(1, len(rows) // 16)), seed)
    return np.unique(kinds, return_inverse=True)[1]


def _clusters(images: NDArray[np.uint8], count: int, seed: int) -> NDArray[np.int64]:
    """Cluster images [N, C, H, W] by k-means on the principal components of their pixels; a number [N]."""
    if count == 1:
        return np.zeros(len(images), np.int64)
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import PCA

    pixels = images.reshape(len(images), -1).astype(np.float32) / 255
    chosen = np.random.default_rng(seed).permutation(len(pixels))[:_MOST_FOR_CLUSTERS]
    components = min(32, pixels.shape[1], len(chosen))
    projection = PCA(components, random_state=seed, svd_solver="randomized").fit(pixels[chosen])
    means = MiniBatchKMeans(count, random_state=seed, n_init=3).fit(projection.transform(pixels[chosen]))
    return np.asarray(means.predict(projection.transform(pixels)), np.int64)


def _read_weights(content: bytes) -> Mapping[str, Tensor]:
    try:
        weights: Mapping[str, Tensor] = load(content)
    except (SafetensorError, ValueError) as error:
        raise InputError(f"{WEIGHTS} is not a complete safetensors file: {error}") from None
    return weights
