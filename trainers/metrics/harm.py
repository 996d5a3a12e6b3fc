"""Harm images in known ways: what feature sets are trained to see, and what a judge is examined on.

Every harm takes images [B, C, H, W] in [-1, 1] and a strength in (0, 1] per image, and returns images of the same shape
in [-1, 1].  All randomness comes from the generator, which is on the CPU, so that all devices harm alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Harm = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""images [B, C, H, W] in [-1, 1], strength [B] in (0, 1], generator -> images [B, C, H, W] in [-1, 1]."""


def add_noise(x: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Add white noise of standard deviation 0.5 x strength."""
    noise = torch.randn(x.shape, generator=generator).to(x.device)
    return (x + 0.5 * strength[:, None, None, None] * noise).clamp(-1, 1)


def blur(x: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Mix the image with its blurs by two Gaussians, the wider one at strength 1.

    The wider one's standard deviation is 0.08 of the image's side + 0.4 pixels, 2 at most; the other's is a third of
    that.  Up to strength 0.5 the result goes linearly from the image to the narrower blur, and from there to the wider
    one.  So a batch needs two convolutions.
    """
    widest = min(2.0, 0.08 * x.shape[-1] + 0.4)
    sharp, soft = _gaussian(x, widest / 3), _gaussian(x, widest)
    s = strength[:, None, None, None]
    return torch.where(s < 0.5, torch.lerp(x, sharp, 2 * s), torch.lerp(sharp, soft, 2 * s - 1))


def change_contrast(x: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Pull every pixel towards the image's mean by up to 0.6 x strength."""
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(x, mean.expand_as(x), 0.6 * strength[:, None, None, None])


def cut_out(x: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Set a square of side up to 0.6 x strength of the image's side to the image's mean, at a random place."""
    count, _, height, width = x.shape
    side = 0.6 * strength
    top = torch.rand(count, generator=generator).to(x.device) * (1 - side)
    left = torch.rand(count, generator=generator).to(x.device) * (1 - side)
    rows = (torch.arange(height, device=x.device) + 0.5)[None] / height
    columns = (torch.arange(width, device=x.device) + 0.5)[None] / width
    inside_rows = (rows >= top[:, None]) & (rows < (top + side)[:, None])
    inside_columns = (columns >= left[:, None]) & (columns < (left + side)[:, None])
    inside = (inside_rows[:, :, None] & inside_columns[:, None, :])[:, None]
    return torch.where(inside, x.mean(dim=(1, 2, 3), keepdim=True), x)


def mix_with_another(x: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Blend each image with another one of the batch, up to half and half."""
    other = x[torch.randperm(len(x), generator=generator).to(x.device)]
    return torch.lerp(x, other, 0.5 * strength[:, None, None, None])


HARMS: dict[str, Harm] = {
    "noise": add_noise,
    "blur": blur,
    "contrast": change_contrast,
    "cutout": cut_out,
    "mixture": mix_with_another,
}


def harm_images(x: Tensor, harm: str, strength: float, seed: int) -> Tensor:
    """Return the images [B, C, H, W] harmed at one strength."""
    generator = torch.Generator().manual_seed(seed)
    return HARMS[harm](x, torch.full((len(x),), strength, device=x.device), generator)


def _gaussian(x: Tensor, deviation: float) -> Tensor:
    """Convolve with a normalised Gaussian; the border repeats the outermost pixels."""
    reach = min(max(1, math.ceil(2 * deviation)), x.shape[-1] - 1)
    at = torch.arange(-reach, reach + 1, dtype=torch.float32, device=x.device)
    weights = torch.exp(-0.5 * (at / deviation) ** 2)
    weights = weights / weights.sum()
    channels = x.shape[1]
    padded = F.pad(x, (reach, reach, reach, reach), mode="replicate")
    rows = F.conv2d(padded, weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(rows, weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
