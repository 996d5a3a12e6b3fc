"""Draw noisy training batches; everything random in a training step is a function of (seed, step)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.data import ImageData, to_float
from stepfront.trainers.diffusion.schedule import NoiseSchedule
from stepfront.trainers.training.distributed import Group


class NoisyBatch(NamedTuple):
    """Noisy images, and what a network is to predict from them."""

    x: Tensor
    """Noisy images [B, C, H, W]."""
    t: Tensor
    """Their times [B]."""
    eps: Tensor
    """The noise in them [B, C, H, W]."""
    label: Tensor | None
    """Their classes [B]; None for a network without classes."""


class NoiseTable:
    """The noise schedule at every training time, on a device."""

    def __init__(self, schedule: NoiseSchedule, device: torch.device) -> None:
        times = np.arange(schedule.steps, dtype=np.float64)
        self._alpha = torch.from_numpy(schedule.alpha(times)).float().to(device)
        self._sigma = torch.from_numpy(schedule.sigma(times)).float().to(device)

    def __len__(self) -> int:
        return len(self._alpha)

    def add_noise(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Return alpha_t x0 + sigma_t eps, [B, C, H, W]."""
        return self._alpha[t, None, None, None] * x0 + self._sigma[t, None, None, None] * eps


class BatchSource:
    """Draws the batches of a training for one process of a group."""

    def __init__(
        self, settings: TrainerSettings, data: ImageData, noise: NoiseTable, group: Group, device: torch.device
    ) -> None:
        self._settings, self._data, self._noise, self._group, self._device = settings, data, noise, group, device

    def draw(self, generator: torch.Generator) -> list[NoisyBatch]:
        """Draw a batch and return this process's part of it, in micro-batches.

        Every process draws the complete batch, so the batch is the same however many processes share it.
        """
        count, shape = self._settings.training.batch, self._data.images.shape[1:]
        rows = torch.randint(len(self._data.images), (count,), generator=generator)
        mirrored = torch.rand(count, generator=generator) < 0.5 if self._settings.data.flip else None
        t = torch.randint(len(self._noise), (count,), generator=generator)
        eps = torch.randn((count, *shape), generator=generator)
        labels = self._labels(rows, generator)
        batches = []
        for part in self._group.shares(count, self._settings.training.accumulate):
            x0 = to_float(self._data.images[rows[part].numpy()])
            if mirrored is not None:
                x0 = torch.where(mirrored[part, None, None, None], x0.flip(3), x0)
            times, noise = t[part].to(self._device), eps[part].to(self._device)
            label = None if labels is None else labels[part].to(self._device)
            noisy = self._noise.add_noise(x0.to(self._device), times, noise)
            batches.append(NoisyBatch(noisy, times, noise, label))
        return batches

    def _labels(self, rows: Tensor, generator: torch.Generator) -> Tensor | None:
        """Return the labels of images, with a random share replaced by the null class."""
        classes = self._settings.network.classes
        if classes is None or self._data.labels is None:
            return None
        labels = torch.from_numpy(self._data.labels[rows.numpy()])
        dropped = torch.rand(len(labels), generator=generator) < self._settings.training.drop_labels
        return labels.masked_fill(dropped, classes)


def step_seed(seed: int, step: int) -> int:
    """Return a 62-bit seed for one step, far from the seeds of all other steps and trainings."""
    return int(np.random.SeedSequence([seed, step + 1]).generate_state(1, np.uint64)[0] >> 2)


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return the generator of one step's batches and widths."""
    return torch.Generator().manual_seed(step_seed(seed, step))
