"""Build the DDPM U-Net (Ho et al. 2020, appendix B) at one width, as a plain torch module.

It takes noisy images x [B, C, H, W] and times t [B] in training-time units, and returns the predicted noise
[B, C, H, W].  A network with classes also takes label [B]: its embedding is added to that of the time (Dhariwal &
Nichol 2021, appendix A).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepfront.errors import InputError
from stepfront.trainers.config import NetworkSettings
from stepfront.trainers.networks.layers import Segments, conv, embedding, linear, norm


def build_unet(settings: NetworkSettings, image_channels: int, resolution: int, width: float) -> UNet:
    """Build the U-Net at `width`.

    Raises InputError when the resolution can't be halved often enough, and when `network.attention` names only
    resolutions that the images never have.
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
    return UNet(settings, image_channels, resolution, width)


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


class UNet(nn.Module):
    """A down path, a middle and an up path of residual blocks, with concatenated skips."""

    def __init__(self, settings: NetworkSettings, image_channels: int, resolution: int, width: float) -> None:
        super().__init__()

        def at(multiplier: int) -> int:
            return round(settings.base * width) * multiplier

        self.time_channels, self.frequencies = settings.base, settings.frequencies
        time = (at(4),)
        # The sinusoid itself is not slimmed: a prefix of it would drop whole frequencies for no measurable saving.
        self.time = nn.Sequential(linear((settings.base,), time), nn.SiLU(), linear(time, time))
        now = at(settings.multipliers[0])
        inputs: Segments
        self.head = conv((image_channels,), (now,), 3)

        skips = [now]
        self.down = nn.ModuleList()
        for level, multiplier in enumerate(settings.multipliers):
            attend = resolution in settings.attention
            for _ in range(settings.blocks):
                self.down.append(ResidualBlock((now,), at(multiplier), time, attend, settings))
                now = at(multiplier)
                skips.append(now)
            if level < len(settings.multipliers) - 1:
                self.down.append(Halve(now, settings))
                skips.append(now)
                resolution //= 2

        self.middle = nn.ModuleList(
            [ResidualBlock((now,), now, time, True, settings), ResidualBlock((now,), now, time, False, settings)]
        )

        self.up = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(settings.multipliers))):
            attend = resolution in settings.attention
            for _ in range(settings.blocks + 1):
                inputs = (now, skips.pop())
                if settings.skips == "prefix":
                    # DDSM's layout: one segment, so a narrow block reads columns that were trained for other inputs.
                    inputs = (sum(inputs),)
                self.up.append(ResidualBlock(inputs, at(multiplier), time, attend, settings))
                now = at(multiplier)
            if level:
                self.up.append(Double(now))
                resolution *= 2

        self.tail = nn.Sequential(_norm((now,), settings), nn.SiLU(), conv((now,), (image_channels,), 3))
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
        time = self.time(sinusoid(t, self.time_channels, self.frequencies).to(x.dtype))
        if self.label is not None:
            if label is None:
                label = torch.full((len(x),), self.label.num_embeddings - 1, device=x.device)
            time = time + self.label(label)
        time = F.silu(time)
        h = self.head(x)
        skips = [h]
        for block in self.down:
            h = block(h, time)
            skips.append(h)
        for block in self.middle:
            h = block(h, time)
        for block in self.up:
            h = block(torch.cat([h, skips.pop()], dim=1) if isinstance(block, ResidualBlock) else h, time)
        return self.tail(h)


def _norm(channels: Segments, settings: NetworkSettings) -> nn.GroupNorm:
    return norm(channels, settings.groups, settings.group_channels, settings.norm_eps)


class ResidualBlock(nn.Module):
    """Two normalised convolutions around the time embedding, a shortcut, and optional self-attention."""

    def __init__(self, inputs: Segments, outputs: int, time: Segments, attend: bool, settings: NetworkSettings) -> None:
        super().__init__()
        out = (outputs,)
        self.norm1 = _norm(inputs, settings)
        self.conv1 = conv(inputs, out, 3)
        self.time = linear(time, out)
        self.norm2 = _norm(out, settings)
        self.dropout = nn.Dropout(settings.dropout)
        self.conv2 = conv(out, out, 3)
        # A shortcut must exist at every width or at none, or two widths would be different networks.
        self.shortcut = conv(inputs, out, 1) if inputs != out else nn.Identity()
        self.attention = Attention(outputs, settings) if attend else nn.Identity()
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time(time)[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return self.attention(h + self.shortcut(x))


class Attention(nn.Module):
    """Self-attention over all pixels; a narrow network keeps the first heads complete.

    Raises InputError when the channels are not a multiple of the channels per head.
    """

    def __init__(self, channels: int, settings: NetworkSettings) -> None:
        super().__init__()
        self.heads, rest = divmod(channels, settings.head_channels or channels)
        if rest or not self.heads:
            raise InputError(
                f"{channels} channels of attention are not a multiple of {settings.head_channels} channels per head; "
                "change network.widths or network.head_channels"
            )
        self.norm = _norm((channels,), settings)
        self.qkv = conv((channels,), (channels, channels, channels), 1)
        self.out = conv((channels,), (channels,), 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, 3, self.heads, channels // self.heads, height * width)
        q, k, v = qkv.transpose(3, 4).unbind(1)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(mixed.transpose(2, 3).reshape(batch, channels, height, width))


class Halve(nn.Module):
    """A strided convolution that halves the resolution."""

    def __init__(self, channels: int, settings: NetworkSettings) -> None:
        super().__init__()
        self.conv = conv((channels,), (channels,), 3, stride=2)
        self.pad_end = settings.halving == "end"
        if self.pad_end:  # one zero at the right and at the bottom, as in the code of Ho et al.
            self.conv.padding = (0, 0)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.pad_end else x)


class Double(nn.Module):
    """Nearest-neighbour upsampling to twice the resolution, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv((channels,), (channels,), 3)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
