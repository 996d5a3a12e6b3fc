"""Pairs of the two-Gaussian denoiser: noise, and what a thousand DDIM steps make of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.sampler_learning.pairs import Pairs

SCHEDULE = noise_schedule(DiffusionSettings())


@pytest.fixture(scope="session")
def plane(two_gaussians: type) -> Sampler:
    """Return a sampler of the two Gaussians, in float64."""
    return Sampler({1.0: two_gaussians(SCHEDULE)}, SCHEDULE, Noise(0, (2,)), torch.device("cpu"), torch.float64)


@pytest.fixture(scope="session")
def golden_pairs(plane: Sampler) -> Callable[[int, int], Pairs]:
    """Return pairs by the seed and the number of their noise."""

    @cache
    def make(seed: int, count: int) -> Pairs:
        noise = torch.from_numpy(np.random.RandomState(seed).randn(count, 2))
        return Pairs(noise, many_ddim_steps(plane, noise))

    return make


@torch.no_grad()
def many_ddim_steps(plane: Sampler, x: Tensor) -> Tensor:
    """Return x after a thousand steps of DDIM, written out."""
    times = torch.from_numpy(time_grid(SCHEDULE, "leading", 1000).copy())
    alpha, sigma = SCHEDULE.alpha(times), SCHEDULE.sigma(times)
    for i in range(1000):
        eps = plane.denoisers[1.0](x, times[i].expand(len(x)))
        clean = (x - sigma[i] * eps) / alpha[i]
        x = clean if i == 999 else alpha[i + 1] * clean + sigma[i + 1] * eps
    return x
