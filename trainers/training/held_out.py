"""Compute the noise-prediction error of every width and depth on held-out images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F

from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.data import ImageData, to_float
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.training.batches import NoiseTable, step_generator
from stepfront.trainers.variant import Size

HELD_OUT_STEP = -1
"""The step whose generator draws the held-out noise: no training step has it."""


def held_out_losses(
    supernet: Supernet, settings: TrainerSettings, data: ImageData, noise: NoiseTable, device: torch.device
) -> dict[float, float]:
    """Return the mean squared error per width at full depth, as `losses_by_size` does."""
    full = [size for size in supernet.sizes if size.depth is None]
    losses = losses_by_size(supernet, settings, data, noise, device, full)
    return {size.width: loss for size, loss in losses.items()}


@torch.inference_mode()
def losses_by_size(
    supernet: Supernet,
    settings: TrainerSettings,
    data: ImageData,
    noise: NoiseTable,
    device: torch.device,
    sizes: Sequence[Size],
) -> dict[Size, float]:
    """Return the mean squared error per size, at the times of the training, on the same images and noise always."""
    rows = data.held_out_sample(settings.training.held_out_images)
    x0 = to_float(data.clean_held_out(rows)).to(device)
    first, last = settings.training.times or (0, len(noise) - 1)
    t = torch.linspace(first, last, len(rows)).long().to(device)
    eps = torch.randn(x0.shape, generator=step_generator(settings.training.seed, HELD_OUT_STEP)).to(device)
    x, label = noise.add_noise(x0, t, eps), None
    if settings.network.classes is not None and data.held_out_labels is not None:
        label = torch.from_numpy(data.held_out_labels[rows]).to(device)
    return {size: float(F.mse_loss(supernet(x, t, size.width, label, size.depth).float(), eps)) for size in sizes}


def depth_losses(losses: Mapping[Size, float]) -> dict[str, float]:
    """Return the losses at depths other than the full one, by texts such as `0.50d2`."""
    return {str(size): loss for size, loss in losses.items() if size.depth is not None}
