"""Build the blocks of a U-Net: residual blocks with attention, and what changes the resolution between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from stepfront.errors import InputError
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.layers import Segments, conv, linear, norm


class Resampling(nn.Module):
    """A module between two levels: it changes the resolution and reads no skip."""


class MakeBlock(Protocol):
    """Builds a module that maps [B, sum(inputs), H, W] and the time embedding to [B, outputs, H, W]."""

    def __call__(
        self, inputs: Segments, outputs: int, time: Segments, attend: bool, settings: NetworkSettings
    ) -> nn.Module:
        """Return the block; `attend`: with self-attention."""
        ...


class MakeResampling(Protocol):
    """Builds a module that changes the resolution of `channels` channels by a factor of two."""

    def __call__(self, channels: int, settings: NetworkSettings) -> Resampling:
        """Return the module, which also takes the time embedding and reads no skip."""
        ...


@dataclass(frozen=True)
class UNetParts:
    """The modules that a U-Net is built of; families of their own replace some of them."""

    block: MakeBlock
    halve: MakeResampling
    double: MakeResampling


def group_norm(channels: Segments, settings: NetworkSettings) -> nn.GroupNorm:
    """Make the group norm of a U-Net with these settings."""
    return norm(channels, settings.groups, settings.group_channels, settings.norm_eps)


class ResidualBlock(nn.Module):
    """Two normalised convolutions around the time embedding, a shortcut, and optional self-attention."""

    def __init__(self, inputs: Segments, outputs: int, time: Segments, attend: bool, settings: NetworkSettings) -> None:
        super().__init__()
        out = (outputs,)
        self.norm1 = group_norm(inputs, settings)
        self.conv1 = conv(inputs, out, 3)
        self.time = linear(time, out)
        self.norm2 = group_norm(out, settings)
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
        self.norm = group_norm((channels,), settings)
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


class Halve(Resampling):
    """A strided convolution that halves the resolution."""

    def __init__(self, channels: int, settings: NetworkSettings) -> None:
        super().__init__()
        self.conv = conv((channels,), (channels,), 3, stride=2)
        self.pad_end = settings.halving == "end"
        if self.pad_end:  # one zero at the right and at the bottom, as in the code of Ho et al.
            self.conv.padding = (0, 0)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.pad_end else x)


class Double(Resampling):
    """Nearest-neighbour upsampling to twice the resolution, then a convolution."""

    def __init__(self, channels: int, settings: NetworkSettings) -> None:
        super().__init__()
        self.conv = conv((channels,), (channels,), 3)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
