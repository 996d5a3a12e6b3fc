"""Compute the noise-prediction error of every width on held-out images."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.data import ImageData, to_float
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.training.batches import NoiseTable, step_generator

HELD_OUT_STEP = -1
"""The step whose generator draws the held-out noise: no training step has it."""


@torch.inference_mode()
def held_out_losses(
    supernet: Supernet, settings: TrainerSettings, data: ImageData, noise: NoiseTable, device: torch.device
) -> dict[float, float]:
    """Return the mean squared error per width, at the times of the training, on the same images and noise always."""
    count = min(settings.training.held_out_images, len(data.held_out_images))
    x0 = to_float(data.clean_held_out(slice(count))).to(device)
    first, last = settings.training.times or (0, len(noise) - 1)
    t = torch.linspace(first, last, count).long().to(device)
    eps = torch.randn(x0.shape, generator=step_generator(settings.training.seed, HELD_OUT_STEP)).to(device)
    x, label = noise.add_noise(x0, t, eps), None
    if settings.network.classes is not None and data.held_out_labels is not None:
        label = torch.from_numpy(data.held_out_labels[:count]).to(device)
    return {width: float(F.mse_loss(supernet(x, t, width, label).float(), eps)) for width in supernet.widths}
