"""Pairs of the two-Gaussian denoiser: noise, and what a thousand DDIM steps make of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import pytest

from stepfront.testing.gaussians import two_gaussians_pairs, two_gaussians_sampler
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import noise_schedule
from stepfront.trainers.sampler_learning.pairs import Pairs

SCHEDULE = noise_schedule(DiffusionSettings())


@pytest.fixture(scope="session")
def plane() -> Sampler:
    """Return a sampler of the two Gaussians, in float64."""
    return two_gaussians_sampler(SCHEDULE)


@pytest.fixture(scope="session")
def golden_pairs() -> Callable[[int, int], Pairs]:
    """Return pairs by the seed and the number of their noise."""
    return cache(partial(two_gaussians_pairs, SCHEDULE))
