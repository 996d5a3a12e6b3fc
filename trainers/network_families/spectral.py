"""Build the U-Net of Spectral Diffusion: wavelet gates change the resolution (Yang et al. 2022, arXiv 2211.17106).

A gate weighs the four bands of a Haar transform, per image, band and channel, by a small network of the channels'
means.  Halving is the gated sum of the bands.  Doubling is the inverse transform of four gated bands, which one
convolution makes.

The gates' outputs are four segments, one per band.  So a narrow width keeps the gates of its channels in every band;
as one segment they would be those of LL alone.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from stepfront.errors import InputError
from stepfront.trainers.network_families.haar import haar, inverse_haar
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.layers import Segments, conv, linear
from stepfront.trainers.networks.unet import UNet, check_resolution
from stepfront.trainers.networks.unet_blocks import Resampling, ResidualBlock, UNetParts

BANDS = 4

LEAST_HIDDEN = 8
"""Hidden units of a gate at least: fewer would be noise at narrow widths of small networks."""

FIRST_LOG_ODDS = 2.0
"""Of the gates of LL, and minus those of the others: halving begins close to the mean of each square."""


def build_spectral(settings: NetworkSettings, image_channels: int, resolution: int, width: float) -> SpectralUNet:
    """Build the U-Net with wavelet gates at `width`.

    Raises InputError as `build_unet` does, and for padding of strided convolutions, of which there are none.
    """
    check_resolution(settings, resolution)
    if settings.halving != "centred":
        raise InputError(
            f"network.halving {settings.halving} pads strided convolutions, and family spectral has none; remove it"
        )
    return SpectralUNet(settings, image_channels, resolution, width)


class SpectralUNet(UNet):
    """The U-Net whose resolution changes by wavelets."""

    def __init__(self, settings: NetworkSettings, image_channels: int, resolution: int, width: float) -> None:
        parts = UNetParts(ResidualBlock, WaveletHalve, WaveletDouble)
        super().__init__(settings, image_channels, resolution, width, parts)


class BandGates(nn.Module):
    """The weights in (0, 1) of the bands of each image: a network of two layers on the means of its channels."""

    def __init__(self, inputs: Segments, channels: int) -> None:
        super().__init__()
        hidden = (max(LEAST_HIDDEN, channels // 4),)
        self.inner = linear(inputs, hidden)
        self.outer = linear(hidden, (channels,) * BANDS)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the gates [B, 4, C, 1, 1] for x [B, sum(inputs), H, W]."""
        gates = self.outer(F.silu(self.inner(x.mean((2, 3))))).sigmoid()
        return gates.unflatten(1, (BANDS, -1))[..., None, None]


class WaveletHalve(Resampling):
    """The gated sum of the four bands, at half of the resolution (WG-Down)."""

    def __init__(self, channels: int, settings: NetworkSettings) -> None:
        super().__init__()
        self.gates = BandGates((channels,), channels)
        nn.init.constant_(self.gates.outer.bias, -FIRST_LOG_ODDS)
        nn.init.constant_(self.gates.outer.bias[:channels], FIRST_LOG_ODDS)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return (self.gates(x) * haar(x)).sum(1)


class WaveletDouble(Resampling):
    """The inverse transform of four gated bands, at twice the resolution (WG-Up).

    The convolution that makes the bands costs what that of `Double` costs: four times the channels at a quarter of the
    pixels.
    """

    def __init__(self, channels: int, settings: NetworkSettings) -> None:
        super().__init__()
        bands = (channels,) * BANDS
        self.conv = conv((channels,), bands, 3)
        self.gates = BandGates(bands, channels)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        bands = self.conv(x)
        return inverse_haar(self.gates(bands) * bands.unflatten(1, (BANDS, -1)))
