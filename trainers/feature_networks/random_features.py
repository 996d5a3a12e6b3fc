"""Compute features with a fixed network that was never trained: a judge that no training can flatter.

Random convolutions keep textures, edges and brightness at several scales.  Their responses are whitened by the training
images, so that no direction, such as the overall brightness, outweighs the others.  docs/judges.md has measurements.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from stepfront.errors import InputError
from stepfront.trainers.config import FeatureSettings
from stepfront.trainers.data import ImageData, blocks, to_float
from stepfront.trainers.feature_networks.network_files import holds_network, read_network, save_network
from stepfront.trainers.metrics.feature_set import Features, FeatureSet, Progress
from stepfront.trainers.metrics.fid import Moments

WEIGHTS, CARD = "random-features.safetensors", "random-features.json"
COMPONENTS = 32
"""Principal components that are kept.  With few images per score, more of them only raise the floor of the score."""

_CHANNELS = 32
_LEAST_VARIANCE = 1e-7
"""Of the largest; components below are rounding noise."""


class RandomNetwork(nn.Module):
    """Orthogonal random 3x3 convolutions at each resolution down to 4 pixels, pooled to means and deviations."""

    def __init__(self, image_channels: int, resolution: int) -> None:
        super().__init__()
        layers, channels = [nn.Conv2d(image_channels, _CHANNELS, 3, padding=1)], _CHANNELS
        while resolution > 4:
            layers.append(nn.Conv2d(channels, _CHANNELS, 3, padding=1))
            resolution = (resolution + 1) // 2
        self.layers = nn.ModuleList(layers)
        for layer in layers:
            nn.init.orthogonal_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled responses [B, 2 x 32 x resolutions] of images [B, C, H, W] in [-1, 1]."""
        pooled = []
        for i, layer in enumerate(self.layers):
            x = F.leaky_relu(layer(x if i == 0 else F.avg_pool2d(x, 2, ceil_mode=True)), 0.2)
            pooled += [x.mean(dim=(2, 3)), x.std(dim=(2, 3), correction=0)]
        return torch.cat(pooled, dim=1)


class RandomFeatures(FeatureSet):
    """Whitened responses of an untrained network: seeded, ready in seconds, with or without labels."""

    def prepare(self, data: ImageData, directory: Path, progress: Progress) -> None:
        """Draw the network and take the whitening of the training images, unless `directory` holds them already."""
        made_from = {"fingerprint": data.fingerprint, "seed": self.settings.seed, "components": COMPONENTS}
        if holds_network(directory / WEIGHTS, directory / CARD, made_from):
            return
        network = _draw_network(data, self.settings)
        mean, projection = _whitening(network, data)
        weights = {f"network.{name}": value for name, value in network.state_dict().items()}
        weights |= {"mean": torch.from_numpy(mean), "projection": torch.from_numpy(projection)}
        save_network(directory / WEIGHTS, directory / CARD, weights, made_from)

    def pack(self, directory: Path) -> bytes:
        """Return the bytes of network and whitening.

        Raises InputError when they are missing or do not belong to their card.
        """
        return read_network(directory / WEIGHTS, directory / CARD)

    def open(self, content: bytes, device: torch.device) -> Features:
        """Return the whitened features.  Raises InputError when the bytes are damaged."""
        try:
            weights = load(content)
        except (SafetensorError, ValueError) as error:
            raise InputError(f"{WEIGHTS} is not a complete safetensors file: {error}") from None
        own = {name.removeprefix("network."): value for name, value in weights.items() if name.startswith("network.")}
        resolutions = sum(name.endswith(".weight") for name in own)
        with torch.random.fork_rng():  # first weights are drawn, and replaced at once
            network = RandomNetwork(own["layers.0.weight"].shape[1], 4 << (resolutions - 1))
        network.load_state_dict(own)
        network.requires_grad_(False).eval().to(device)
        mean, projection = weights["mean"].to(device), weights["projection"].to(device)
        return lambda levels: (network(levels / 127.5 - 1) - mean) @ projection


def _draw_network(data: ImageData, settings: FeatureSettings) -> RandomNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        return RandomNetwork(data.channels, data.resolution).requires_grad_(False).eval()


@torch.inference_mode()
def _whitening(network: RandomNetwork, data: ImageData) -> tuple[np.ndarray, np.ndarray]:
    """Return mean [D] and projection [D, K] that give the training images' features unit covariance, float32."""
    moments = Moments.of(network(to_float(images)).numpy() for images in blocks(data.images, 500))
    values, vectors = np.linalg.eigh(moments.covariance)
    values, vectors = values[::-1][:COMPONENTS], vectors[:, ::-1][:, :COMPONENTS]
    kept = values > _LEAST_VARIANCE * values[0]
    projection = vectors[:, kept] / np.sqrt(values[kept])
    return moments.mean.astype(np.float32), np.ascontiguousarray(projection, np.float32)
