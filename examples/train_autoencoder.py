"""Train a tiny autoencoder of diffusers on Fashion-MNIST, whose folder `data.autoencoder` takes (docs/latents.md).

    python examples/train_autoencoder.py [--data data/fashion-mnist] [--out data/fashion-autoencoder] [--small]

Needs diffusers (in a clone: pip install '.[latents]').  Images of 32x32 become latents of 8x8x4.  `--small` takes
scikit-learn's digits and a few steps.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Tensor

from stepfront.trainers.config import DataSettings
from stepfront.trainers.data import load_data, to_float

CHANNELS, LEVELS = 32, 3
"""Channels of every level; the side is halved between levels."""


def make_autoencoder() -> AutoencoderTiny:
    """Return an untrained autoencoder of grey images."""
    torch.manual_seed(0)
    channels, blocks = (CHANNELS,) * LEVELS, (1,) * LEVELS
    return AutoencoderTiny(
        in_channels=1,
        out_channels=1,
        latent_channels=4,
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        num_encoder_blocks=blocks,
        num_decoder_blocks=blocks,
    )


def train(model: AutoencoderTiny, images: Tensor, steps: int, batch: int = 64, lr: float = 2e-3) -> None:
    """Fit decode(encode(x)) to images x [N, 1, H, W] in [-1, 1], by their mean absolute difference."""
    optimizer = torch.optim.AdamW(model.parameters(), lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    for step in range(steps):
        x = images[torch.randint(len(images), (batch,))]
        loss = F.l1_loss(model.decode(model.encode(x).latents).sample, x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            print(f"step {step:>5}: {loss.item():.4f}")


@torch.no_grad()
def set_factors(model: AutoencoderTiny, images: Tensor) -> None:
    """Write into the config the shift and scale that bring latents to mean 0 and deviation 1."""
    latents = model.encode(images).latents
    model.register_to_config(shift_factor=float(latents.mean()), scaling_factor=1 / float(latents.std()))


@torch.no_grad()
def psnr(model: AutoencoderTiny, images: Tensor) -> float:
    """Return the peak signal-to-noise ratio of decoded images in dB."""
    back = model.decode(model.encode(images).latents).sample.clamp(-1, 1)
    return 10 * math.log10(4 / float(F.mse_loss(back, images)))


def main() -> None:
    """Train, and write the folder."""
    parser = argparse.ArgumentParser(description="Train a tiny autoencoder on Fashion-MNIST.")
    parser.add_argument("--data", default="data/fashion-mnist", help="folder of the idx files (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("data/fashion-autoencoder"), help="folder to write")
    parser.add_argument("--steps", type=int, default=1500, help="training steps (default: %(default)s)")
    parser.add_argument("--small", action="store_true", help="digits, and 20 steps")
    given = parser.parse_args()
    fashion = DataSettings(format="idx", path=given.data, size=32, limit=10_000)
    data = load_data(DataSettings(size=16) if given.small else fashion)
    model = make_autoencoder()
    train(model, to_float(data.images), 20 if given.small else given.steps)
    model.eval()
    set_factors(model, to_float(data.images[:1000]))
    model.save_pretrained(given.out)
    print(f"{given.out}: {psnr(model, to_float(data.held_out_images[:1000])):.1f} dB on held-out images")


if __name__ == "__main__":
    main()
