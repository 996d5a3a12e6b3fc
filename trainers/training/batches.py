"""Draw noisy training batches; everything random in a training step is a function of (seed, step)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stepfront.arrays import Array
from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.data import ImageData
from stepfront.trainers.networks.prediction import Targets
from stepfront.trainers.noise_schedule import NoiseSchedule, noise_schedule
from stepfront.trainers.training.distributed import Group
from stepfront.trainers.training_settings import TrainingSettings


class CleanBatch(NamedTuple):
    """Clean images and what is drawn for them, in the memory of the CPU."""

    x0: Tensor
    """Images [B, C, H, W] in [-1, 1], or their latents."""
    t: Tensor
    """Their times [B]."""
    eps: Tensor
    """Their noise [B, C, H, W]."""
    label: Tensor | None
    """Their classes [B]; None for a network without classes."""


class NoisyBatch(NamedTuple):
    """Noisy images, and what a network is to predict from them, on the device of the training."""

    x: Tensor
    """Noisy images [B, C, H, W], as the network reads them."""
    t: Tensor
    """The times that it is told [B]."""
    target: Tensor
    """What it is to predict [B, C, H, W]: the noise, or what `diffusion.prediction` names."""
    label: Tensor | None
    """Their classes [B]; None for a network without classes."""
    weight: Tensor | None = None
    """Weights of their errors [B]; None: all are 1."""


MIN_SNR_GAMMA = 5.0
"""The largest signal-to-noise ratio that min_snr weights count (Hang et al. 2023, arXiv 2303.09556)."""


def loss_weights(training: TrainingSettings, schedule: NoiseSchedule) -> Array | None:
    """Return the weight of the noise's squared error at every training time, [T]; None for an unweighted loss."""
    snr = schedule.alpha_bar / (1 - schedule.alpha_bar)
    if training.loss_weight == "min_snr":
        return np.minimum(snr, MIN_SNR_GAMMA) / snr
    return 1 / (1 + snr) if training.loss_weight == "p2" else None  # arXiv 2204.00227, eq. 8 with k = gamma = 1


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
        self._targets = None
        if settings.diffusion.prediction != "epsilon":
            self._targets = Targets.of(settings.diffusion, device)
        weights = loss_weights(settings.training, noise_schedule(settings.diffusion))
        self._weights = None if weights is None else torch.from_numpy(weights).float().to(device)
        if self._weights is not None and self._targets is not None:
            self._weights = self._weights * self._targets.in_noise**2

    def draw(self, generator: torch.Generator) -> list[CleanBatch]:
        """Draw a batch and return this process's part of it, in micro-batches.

        Every process draws the complete batch, so the batch is the same however many processes share it.
        """
        count, shape = self._settings.training.batch, self._data.network_shape
        rows = torch.randint(len(self._data.images), (count,), generator=generator)
        mirrored = torch.rand(count, generator=generator) < 0.5 if self._settings.data.flip else None
        t = self._times(count, generator)
        eps = torch.randn((count, *shape), generator=generator)
        labels = self._labels(rows, generator)
        batches = []
        for part in self._group.shares(count, self._settings.training.accumulate):
            x0 = self._data.clean(rows[part].numpy(), None if mirrored is None else mirrored[part])
            batches.append(self._ready(CleanBatch(x0, t[part], eps[part], None if labels is None else labels[part])))
        return batches

    def _times(self, count: int, generator: torch.Generator) -> Tensor:
        """Return the times of a batch, [count]: of all training times, or of those that the settings name."""
        training, steps = self._settings.training, len(self._noise)
        if training.times is None:
            return torch.randint(steps, (count,), generator=generator)
        first, last = training.times
        t = torch.randint(first, last + 1, (count,), generator=generator)
        if not training.other_times:
            return t
        others = torch.rand(count, generator=generator) < training.other_times
        return torch.where(others, torch.randint(steps, (count,), generator=generator), t)

    def _ready(self, batch: CleanBatch) -> CleanBatch:
        """Return a batch that can be sent to the device while it computes: from pinned memory."""
        if self._device.type != "cuda":
            return batch
        return CleanBatch(*(None if each is None else each.pin_memory() for each in batch))  # type: ignore[arg-type]

    def noisy(self, batch: CleanBatch) -> NoisyBatch:
        """Send a batch to the device, and add the noise there."""
        x0, t, eps, label = (None if each is None else each.to(self._device, non_blocking=True) for each in batch)
        assert x0 is not None
        assert t is not None
        assert eps is not None
        x, weight = self._noise.add_noise(x0, t, eps), None if self._weights is None else self._weights[t]
        if self._targets is None:
            return NoisyBatch(x, t, eps, label, weight)
        return NoisyBatch(*self._targets.at(t, x, x0, eps), label, weight)

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
