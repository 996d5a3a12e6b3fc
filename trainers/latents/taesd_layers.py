"""Build the layers of TAESD and TAEF2 from the names and shapes of their raw weights.

`N.weight` is a convolution and `N.conv.0.weight` begins a residual block of three.  A `N.pool.0.weight` adds TAEF2's
branch to the block.  In the encoder a convolution without bias halves the side; in the decoder one doubles it first.
Images are in [0, 1] (github.com/madebyollin/taesd, MIT).  Needs torch alone: exported pipelines contain this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

GROUPS = 4
LARGEST = 3.0
"""Latents are clamped smoothly to +-3 before they are decoded."""


class Block(nn.Module):
    """Three convolutions beside the identity, and TAEF2's pool branch where the weights have one."""

    def __init__(self, channels: int, pooled: int | None) -> None:
        super().__init__()
        layers = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
        self.pool: nn.Sequential | None = None
        if pooled is not None:
            into, back = nn.Conv2d(channels, pooled, 1, bias=False), nn.Conv2d(pooled, channels, 1, bias=False)
            self.pool = nn.Sequential(into, nn.GroupNorm(GROUPS, pooled), nn.ReLU(), back)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of the shape of its input."""
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class Clamp(nn.Module):
    """Brings latents smoothly into the range that decoders are trained on."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the latents within +-`LARGEST`."""
        return torch.tanh(x / LARGEST) * LARGEST


def layers_of(shapes: Mapping[str, Sequence[int]], decodes: bool) -> nn.Sequential:
    """Return a decoder, or an encoder, whose weights have these names, such as `3.conv.0.weight`, and shapes."""
    numbers = sorted({int(name.split(".")[0]) for name in shapes if name.split(".")[0].isdigit()})
    layers: dict[str, nn.Module] = {"clamp": Clamp()} if decodes else {}
    for number in numbers:
        plain, first, pool = (shapes.get(f"{number}.{name}") for name in ("weight", "conv.0.weight", "pool.0.weight"))
        if first is not None:
            layers[str(number)] = Block(first[0], None if pool is None else pool[0])
        elif plain is not None and len(plain) == 4:
            biased = f"{number}.bias" in shapes
            if decodes and not biased:
                layers[f"up{number}"] = nn.Upsample(scale_factor=2)
            stride = 1 if biased or decodes else 2
            layers[str(number)] = nn.Conv2d(plain[1], plain[0], 3, stride, padding=1, bias=biased)
            if decodes and number == numbers[0]:
                layers["relu"] = nn.ReLU()
    network = nn.Sequential()
    for name, layer in layers.items():
        network.add_module(name, layer)
    return network
