"""Small networks with random weights (not the initial zeros), small images, and the two-Gaussian denoiser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from stepfront.testing.gaussians import TwoGaussians
from stepfront.trainers.config import DataSettings, DiffusionSettings
from stepfront.trainers.data import ImageData, load_data
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.supernet import Supernet

WIDTHS = (0.25, 0.375, 0.5, 0.75, 1.0)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    # Networks this small lose time to more threads.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def network() -> NetworkSettings:
    return NetworkSettings(base=8, multipliers=(1, 2), attention=(8,), groups=4, group_channels=2, widths=WIDTHS)


@pytest.fixture(scope="session")
def random_supernet() -> Callable[..., Supernet]:
    """Return a supernet in which every parameter is random."""

    def make(
        settings: NetworkSettings,
        image_channels: int = 1,
        resolution: int = 8,
        seed: int = 0,
        diffusion: DiffusionSettings | None = None,
    ) -> Supernet:
        supernet = Supernet(settings, image_channels, resolution, diffusion).eval()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weights in supernet.named_parameters():
                is_scale = "norm" in name and name.endswith("weight")
                spread = 0.3 if weights.ndim == 1 else weights[0].numel() ** -0.5
                weights.copy_(spread * torch.randn(weights.shape, generator=generator) + is_scale)
        return supernet

    return make


@pytest.fixture(scope="session")
def digits() -> ImageData:
    return load_data(DataSettings())


@pytest.fixture
def trap(tmp_path: Path) -> tuple[object, Path]:
    """Return an object whose unpickling creates a file, and that file's path."""
    witness = tmp_path / "executed"

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (witness,)

    return Trap(), witness


@pytest.fixture(scope="session")
def two_gaussians() -> type[TwoGaussians]:
    return TwoGaussians


@pytest.fixture(scope="session")
def start() -> np.ndarray:
    """x_T of the golden numbers, [64, 2]."""
    return np.random.RandomState(0).randn(64, 2)
