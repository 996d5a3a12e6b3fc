"""The decoder of a TAESD or TAEF2 as a diffusers model, from its raw weights (github.com/madebyollin/taesd, MIT).

Needs diffusers and torch alone.
"""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

LARGEST = 3.0
"""Latents are clamped smoothly to +-3 before they are decoded."""


class TaesdDecoder(ModelMixin, ConfigMixin):
    """Latents to images; `shapes` names the weights of the layers, which follow from them."""

    @register_to_config
    def __init__(self, shapes: dict[str, list[int]]) -> None:
        super().__init__()
        self.decoder = nn.ModuleDict()
        for number in sorted({int(name.split(".")[1]) for name in shapes}):
            here = f"decoder.{number}"
            plain, first, pool = (shapes.get(f"{here}{name}.weight") for name in ("", ".conv.0", ".pool.0"))
            if first is not None:
                self.decoder[str(number)] = _Block(first[0], None if pool is None else pool[0])
            elif plain is not None:
                has_bias = f"{here}.bias" in shapes
                self.decoder[str(number)] = nn.Conv2d(plain[1], plain[0], 3, padding=1, bias=has_bias)

    @apply_forward_hook
    def decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """Return the images [B, C, H, W] in about [-1, 1] of latents [B, c, h, w]."""
        h = torch.tanh(z / LARGEST) * LARGEST
        for position, layer in enumerate(self.decoder.values()):
            if isinstance(layer, nn.Conv2d) and layer.bias is None:  # such a layer doubles the side first
                h = nn.functional.interpolate(h, scale_factor=2)
            h = layer(h)
            h = torch.relu(h) if position == 0 else h
        images = h * 2 - 1
        return DecoderOutput(sample=images) if return_dict else (images,)


class _Block(nn.Module):
    """Three convolutions beside the identity, and TAEF2's pool branch where the weights have one."""

    def __init__(self, channels: int, pooled: int | None) -> None:
        super().__init__()
        layers = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
        self.pool: nn.Sequential | None = None
        if pooled is not None:
            into, back = nn.Conv2d(channels, pooled, 1, bias=False), nn.Conv2d(pooled, channels, 1, bias=False)
            self.pool = nn.Sequential(into, nn.GroupNorm(4, pooled), nn.ReLU(), back)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of the shape of its input."""
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)
