"""Build TAESD's autoencoders, and TAEF2's, from their raw weights: an encoder's and a decoder's file in one folder.

The layers follow from names and shapes: `N.weight` is a convolution and `N.conv.0.weight` begins a residual block of
three.  A `N.pool.0.weight` adds TAEF2's branch to the block.  In the encoder a convolution without bias halves the
side; in the decoder one doubles it first.  Images are in [0, 1] (github.com/madebyollin/taesd, MIT).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from stepfront.errors import InputError

_GROUPS = 4
_LARGEST = 3.0
"""Latents are clamped smoothly to +-3 before they are decoded."""


class _Block(nn.Module):
    """Three convolutions beside the identity, and TAEF2's pool branch where the weights have one."""

    def __init__(self, channels: int, pooled: int | None) -> None:
        super().__init__()
        layers = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
        self.pool: nn.Sequential | None = None
        if pooled is not None:
            into, back = nn.Conv2d(channels, pooled, 1, bias=False), nn.Conv2d(pooled, channels, 1, bias=False)
            self.pool = nn.Sequential(into, nn.GroupNorm(_GROUPS, pooled), nn.ReLU(), back)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of the shape of its input."""
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class _Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / _LARGEST) * _LARGEST


class Taesd(nn.Module):
    """An encoder and a decoder, or the decoder alone, from raw weights; images are in [-1, 1]."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """Build the layers that `weights` name, as `encoder.N...` and `decoder.N...`.

        Raises InputError for names or shapes of another network.
        """
        super().__init__()
        self.encoder = self.decoder = None
        for part in ("encoder", "decoder"):
            own = {name.removeprefix(f"{part}."): value for name, value in weights.items() if name.startswith(part)}
            if own:
                setattr(self, part, _layers(own, part == "decoder"))

    def encode(self, x: Tensor) -> Tensor:
        """Return the latents [B, c, h, w] of images [B, C, H, W] in [-1, 1]."""
        assert self.encoder is not None
        return self.encoder((x + 1) / 2)

    def decode(self, latents: Tensor) -> Tensor:
        """Return images [B, C, H, W] in about [-1, 1] of latents [B, c, h, w]."""
        assert self.decoder is not None
        return self.decoder(latents) * 2 - 1


def is_raw(folder: Path) -> bool:
    """Return whether a folder holds one encoder and one decoder as raw weights, and no config."""
    return not (folder / "config.json").exists() and all(len(_files(folder, part)) == 1 for part in _PARTS)


def raw_files(folder: Path) -> dict[str, Path]:
    """Return the file of each part."""
    return {part: _files(folder, part)[0] for part in _PARTS}


_PARTS = ("encoder", "decoder")


def _files(folder: Path, part: str) -> list[Path]:
    return sorted(folder.glob(f"*{part}.safetensors"))


def _layers(weights: Mapping[str, Tensor], decodes: bool) -> nn.Sequential:
    numbers = sorted({int(name.split(".")[0]) for name in weights if name.split(".")[0].isdigit()})
    layers: dict[str, nn.Module] = {"clamp": _Clamp()} if decodes else {}
    for number in numbers:
        plain, first, pool = (weights.get(f"{number}.{name}") for name in _LAYERS)
        if first is not None:
            layers[str(number)] = _Block(first.shape[0], None if pool is None else pool.shape[0])
        elif plain is not None and plain.ndim == 4:
            biased = f"{number}.bias" in weights
            if decodes and not biased:
                layers[f"up{number}"] = nn.Upsample(scale_factor=2)
            stride = 1 if biased or decodes else 2
            layers[str(number)] = nn.Conv2d(plain.shape[1], plain.shape[0], 3, stride, padding=1, bias=biased)
            if decodes and number == numbers[0]:
                layers["relu"] = nn.ReLU()
    network = nn.Sequential()
    for name, layer in layers.items():
        network.add_module(name, layer)
    _check_shapes(network, weights, "decoder" if decodes else "encoder")
    return network


_LAYERS = ("weight", "conv.0.weight", "pool.0.weight")


def _check_shapes(network: nn.Module, weights: Mapping[str, Tensor], part: str) -> None:
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    if expected != given:
        name = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))[0]
        raise InputError(f"the {part} is no TAESD: {name} is {given.get(name, 'missing')}; another layout is unknown")
