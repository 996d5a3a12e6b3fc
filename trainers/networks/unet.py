"""Build the DDPM U-Net (Ho et al. 2020, appendix B) at one width, as a plain torch module.

It takes noisy images x [B, C, H, W] and times t [B] in training-time units, and returns the predicted noise
[B, C, H, W].  A network with classes also takes label [B]: its embedding is added to that of the time (Dhariwal &
Nichol 2021, appendix A).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepfront.errors import InputError
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.layers import Segments, conv, embedding, linear
from stepfront.trainers.networks.unet_blocks import Double, Halve, Resampling, ResidualBlock, UNetParts, group_norm

FAMILIES_OF_UNETS = ("unet", "spectral", "ode")
"""The families that are U-Nets, of which `network.attention` names resolutions."""


def build_unet(settings: NetworkSettings, image_channels: int, resolution: int, width: float) -> UNet:
    """Build the U-Net at `width`.

    Raises InputError when the resolution can't be halved often enough, and when `network.attention` names only
    resolutions that the images never have.
    """
    check_resolution(settings, resolution)
    return UNet(settings, image_channels, resolution, width)


def check_resolution(settings: NetworkSettings, resolution: int) -> None:
    """Check that images of `resolution` can be halved often enough and have some resolution of `network.attention`.

    Raises InputError otherwise.
    """
    halvings = len(settings.multipliers) - 1
    if resolution % 2**halvings:
        raise InputError(
            f"images of {resolution} pixels can't be halved {halvings} times "
            f"(network.multipliers has {halvings + 1} entries); resize with data.size or give fewer multipliers"
        )
    missing = missing_attention(settings, resolution)
    if missing and len(missing) == len(set(settings.attention)):
        raise InputError(attention_refusal(missing, settings, resolution))


def missing_attention(settings: NetworkSettings, resolution: int) -> list[int]:
    """Return the resolutions of `network.attention` that images of `resolution` never have, ascending."""
    return sorted(set(settings.attention) - set(_resolutions(settings, resolution)))


def attention_refusal(missing: list[int], settings: NetworkSettings, resolution: int) -> str:
    """Return the line that refuses attention at resolutions that images never have."""
    return (
        f"network.attention names {', '.join(map(str, missing))}, and images of {resolution} pixels never have "
        f"{'that resolution' if len(missing) == 1 else 'these resolutions'} in this network; possible: "
        f"{', '.join(map(str, _resolutions(settings, resolution)))} (the middle always has attention)"
    )


def _resolutions(settings: NetworkSettings, resolution: int) -> list[int]:
    return [resolution >> level for level in range(len(settings.multipliers))]


def sinusoid(t: Tensor, size: int, whose: str = "plain") -> Tensor:
    """Return interleaved sines and cosines [B, size] of the times [B] (Vaswani et al. 2017, section 3.5)."""
    angles = t.float()[:, None] * frequencies(size, whose, t.device)[None]
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :size]


def frequencies(size: int, whose: str, device: torch.device) -> Tensor:
    """Return 10000^(-i / n) for i < n = size / 2, [n]; a shifted `whose` has n - 1 in the exponent."""
    # One formula, four orders of rounding: at t = 999, one last bit of the first frequencies moves a sine by 6e-5.
    log, pairs = math.log(10000.0), torch.arange(0, size, 2, device=device)
    if whose == "plain":
        return torch.exp(pairs * (-log / size))
    if whose == "ddsm":
        return torch.exp(-(pairs / size * log))
    return torch.exp(
        -log * torch.arange(size // 2, device=device).float() / (size // 2 - (whose == "diffusers_shifted"))
    )


class Level(NamedTuple):
    """One resolution of a U-Net: its channels, and whether its blocks have attention."""

    channels: int
    attend: bool


class UNet(nn.Module):
    """A down path, a middle and an up path with concatenated skips, of `parts`; None: of the parts of DDPM."""

    def __init__(
        self,
        settings: NetworkSettings,
        image_channels: int,
        resolution: int,
        width: float,
        parts: UNetParts | None = None,
    ) -> None:
        super().__init__()
        base = round(settings.base * width)
        parts = UNetParts(ResidualBlock, Halve, Double) if parts is None else parts
        levels = [
            Level(base * multiplier, side in settings.attention)
            for multiplier, side in zip(settings.multipliers, _resolutions(settings, resolution), strict=True)
        ]
        self.time_channels, self.frequencies = settings.base, settings.frequencies
        time = (4 * base,)
        # The sinusoid itself is not slimmed: a prefix of it would drop whole frequencies for no measurable saving.
        self.time = nn.Sequential(linear((settings.base,), time), nn.SiLU(), linear(time, time))
        first, deepest = levels[0].channels, levels[-1].channels
        self.head = conv((image_channels,), (first,), 3)
        self.down, skips = _down_path(levels, time, settings, parts)
        self.middle = nn.ModuleList(parts.block((deepest,), deepest, time, at, settings) for at in (True, False))
        self.up = _up_path(levels, skips, time, settings, parts)

        self.tail = nn.Sequential(group_norm((first,), settings), nn.SiLU(), conv((first,), (image_channels,), 3))
        nn.init.zeros_(self.tail[2].weight)  # type: ignore[arg-type]  # the first prediction is zero, as in DDPM
        nn.init.zeros_(self.tail[2].bias)  # type: ignore[arg-type]

        # Created last and at zero, so that a conditional network starts exactly as the unconditional one.
        self.label = embedding(settings.classes + 1, time) if settings.classes else None
        if self.label is not None:
            nn.init.zeros_(self.label.weight)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the predicted noise [B, C, H, W].

        Labels [B] count from 0.  The null class is the number of classes, or no label at all.
        """
        return self.with_features(x, t, label)[0]

    @property
    def splits(self) -> bool:
        """Whether there is a level below the outermost one, whose features a step can reuse (deep_features.py)."""
        return any(isinstance(block, Resampling) for block in self.down)

    def with_features(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the predicted noise, and the deep features [B, D, H, W]: what the outermost level takes from below."""
        time = self._embedded(x, t, label)
        skips = [self.head(x)]
        for block in self.down:
            skips.append(block(skips[-1], time))
        h = skips[-1]
        for block in self.middle:
            h = block(h, time)
        below, outermost = self._up_levels()
        deep = _risen(below, h, skips, time)
        return self.tail(_risen(outermost, deep, skips, time)), deep

    def reusing(self, deep: Tensor, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the predicted noise of the outermost level on deep features [B, D, H, W] of another call."""
        time = self._embedded(x, t, label)
        skips = [self.head(x)]
        for block in takewhile(lambda block: not isinstance(block, Resampling), self.down):
            skips.append(block(skips[-1], time))
        return self.tail(_risen(self._up_levels()[1], deep, skips, time))

    def _embedded(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        time = self.time(sinusoid(t, self.time_channels, self.frequencies).to(x.dtype))
        if self.label is not None:
            if label is None:
                label = torch.full((len(x),), self.label.num_embeddings - 1, device=x.device)
            time = time + self.label(label)
        return F.silu(time)

    def _up_levels(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Return the up path of the levels below the outermost, up-sampling included, and that of the outermost."""
        blocks = list(self.up)
        first = max((i + 1 for i, block in enumerate(blocks) if isinstance(block, Resampling)), default=0)
        return blocks[:first], blocks[first:]


def _risen(blocks: Sequence[nn.Module], h: Tensor, skips: list[Tensor], time: Tensor) -> Tensor:
    """Return h after some modules of an up path, which take their skips from the end of `skips`."""
    for block in blocks:
        h = block(h if isinstance(block, Resampling) else torch.cat([h, skips.pop()], dim=1), time)
    return h


def _down_path(
    levels: Sequence[Level], time: Segments, settings: NetworkSettings, parts: UNetParts
) -> tuple[nn.ModuleList, list[int]]:
    """Return the down path, and the channels of the skips: one before it, and one after each module."""
    path, now = nn.ModuleList(), levels[0].channels
    skips = [now]
    for level in levels:
        if len(path):
            path.append(parts.halve(now, settings))
            skips.append(now)
        for _ in range(settings.blocks):
            path.append(parts.block((now,), level.channels, time, level.attend, settings))
            now = level.channels
            skips.append(now)
    return path, skips


def _up_path(
    levels: Sequence[Level], skips: list[int], time: Segments, settings: NetworkSettings, parts: UNetParts
) -> nn.ModuleList:
    """Return the up path, which takes the skips from the last to the first."""
    path, now = nn.ModuleList(), levels[-1].channels
    for level in reversed(levels):
        if len(path):
            path.append(parts.double(now, settings))
        for _ in range(settings.blocks + 1):
            inputs: Segments = (now, skips.pop())
            if settings.skips == "prefix":
                # DDSM's layout: one segment, so a narrow block reads columns that were trained for other inputs.
                inputs = (sum(inputs),)
            path.append(parts.block(inputs, level.channels, time, level.attend, settings))
            now = level.channels
    return path
