"""Two Gaussians in the plane: a denoiser in closed form, and pairs of noise and what a thousand steps make of it.

Learnt samplers, tables of step errors and solvers of your own can be measured on it in milliseconds.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import NoiseSchedule, time_grid
from stepfront.trainers.sampler_learning.pairs import Pairs

TEACHER_STEPS = 1000
"""Steps of DDIM, on the leading grid, that the pairs are made with."""


class TwoGaussians:
    """Two Gaussians in the plane, weights 0.3 and 0.7, variance 0.04: their noise is known in closed form."""

    means = torch.tensor([[1.0, -0.5], [-0.75, 0.25]], dtype=torch.float64)
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    variance = 0.04

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.schedule = schedule

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Return eps = -sigma grad log p_t(x), p_t the mixture convolved with the noise; x is [N, 2], t is [N]."""
        alpha = self.schedule.alpha(t.double())[:, None]
        sigma = self.schedule.sigma(t.double())[:, None]
        variance = alpha**2 * self.variance + sigma**2
        away = x[:, None] - alpha[:, None] * self.means
        share = (self.weights.log() - away.square().sum(2) / (2 * variance)).softmax(1)
        return sigma * (share[:, :, None] * away).sum(1) / variance


def two_gaussians_sampler(schedule: NoiseSchedule) -> Sampler:
    """Return a sampler of the two Gaussians at full width, on the CPU in float64."""
    return Sampler({1.0: TwoGaussians(schedule)}, schedule, Noise(0, (2,)), torch.device("cpu"), torch.float64)


@torch.no_grad()
def two_gaussians_pairs(schedule: NoiseSchedule, seed: int, count: int) -> Pairs:
    """Return pairs of noise [count, 2] and what a thousand steps of DDIM make of it.

    The steps are written out: no solver of this package takes part, so that solvers can be held against them.
    """
    noise = torch.from_numpy(np.random.RandomState(seed).randn(count, 2))
    denoise, x = TwoGaussians(schedule), noise
    times = torch.from_numpy(time_grid(schedule, "leading", TEACHER_STEPS).copy())
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    for i in range(TEACHER_STEPS):
        eps = denoise(x, times[i].expand(count))
        clean = (x - sigma[i] * eps) / alpha[i]
        x = clean if i == TEACHER_STEPS - 1 else alpha[i + 1] * clean + sigma[i + 1] * eps
    return Pairs(noise, x)
