"""A tiny AutoencoderTiny with random weights, as diffusers saves it, and images that it can encode."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stepfront.trainers.config import DataSettings

TAEF2 = Path(os.environ.get("STEPFRONT_TEST_DATA", Path(__file__).resolve().parents[4] / "shared" / "data")) / "taef2"


def make_autoencoder(kind: str, folder: Path, seed: int = 0, **others: Any) -> Path:
    """Save a small autoencoder of diffusers with random weights, which halves the side once."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    channels = (4, 4) if kind == "AutoencoderTiny" else (8, 8)
    options: dict[str, Any] = {"in_channels": 1, "out_channels": 1, "latent_channels": 2}
    if kind == "AutoencoderTiny":
        options |= {"encoder_block_out_channels": channels, "decoder_block_out_channels": channels}
        options |= {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    else:
        blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
        options |= {"block_out_channels": channels, "norm_num_groups": 4, **blocks}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        getattr(diffusers, kind)(**options | others).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an AutoencoderTiny: grey images, 2 latent channels, half the side."""
    return make_autoencoder("AutoencoderTiny", tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def settings(tiny: Path, tmp_path: Path) -> Callable[..., DataSettings]:
    """Return a function from options to data settings of the digits with the tiny autoencoder."""

    def make(**others: Any) -> DataSettings:
        options = {"autoencoder": str(tiny), "cache": str(tmp_path / "cache"), "limit": 64, "latent_type": "float32"}
        return DataSettings(**{**options, **others})

    return make


def random_images(count: int, channels: int = 1, side: int = 8) -> torch.Tensor:
    """Return images in [-1, 1], [count, channels, side, side]."""
    return torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (count, channels, side, side)).astype(np.float32))
