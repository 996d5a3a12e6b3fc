"""TAEF2, a real autoencoder, on CIFAR-10; skipped where the files are absent."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from stepfront.errors import InputError
from stepfront.trainers.latents.autoencoder import load_autoencoder
from tests.trainers.latents.conftest import TAEF2

CIFAR10 = TAEF2.parent / "cifar10-jpg" / "cifar10-jpg.zip"
IMAGES = 32


def test_cifar10_comes_back_from_its_latents() -> None:
    if not TAEF2.is_dir() or not CIFAR10.is_file():
        pytest.skip(f"TAEF2 or CIFAR-10 is absent from {TAEF2.parent}")
    with zipfile.ZipFile(CIFAR10) as archive:
        names = sorted(name for name in archive.namelist() if name.startswith("test/") and name.endswith(".jpg"))
        chosen = names[:: len(names) // IMAGES][:IMAGES]
        small = [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in chosen]
    large = np.stack([np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC)) for image in small])
    autoencoder = load_autoencoder(TAEF2)
    assert autoencoder.factors is None
    encoded = autoencoder.encode(torch.from_numpy(large).permute(0, 3, 1, 2).float() / 127.5 - 1)
    assert encoded.shape == (IMAGES, 32, 8, 8)
    assert encoded.mean().abs() < 0.1
    assert 0.8 < encoded.std() < 0.9
    decoded = ((autoencoder.decode(encoded).clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    errors = [
        np.square(
            np.asarray(Image.fromarray(back).resize((32, 32), Image.Resampling.BICUBIC), float) - np.asarray(image)
        )
        for back, image in zip(decoded, small, strict=True)
    ]
    noise_db = 10 * np.log10(255**2 / np.mean([error.mean() for error in errors]))
    assert 31 < noise_db < 33  # 31.8 over the test split (its provenance file)


def test_raw_weights_of_another_layout_are_refused(tmp_path: Path) -> None:
    kernel = torch.zeros(4, 3, 3, 3)
    save_file(
        {"0.weight": kernel, "0.bias": torch.zeros(4), "1.gain": torch.zeros(1)}, tmp_path / "a_encoder.safetensors"
    )
    save_file({"1.weight": torch.zeros(3, 4, 3, 3), "1.bias": torch.zeros(3)}, tmp_path / "a_decoder.safetensors")
    with pytest.raises(InputError, match=r"the encoder is no TAESD: 1.gain"):
        load_autoencoder(tmp_path)
