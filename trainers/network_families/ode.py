"""Build a U-Net whose blocks solve second-order ODEs, after The Missing U (arXiv 2310.20092).

Only the paper's abstract is public, so this follows its idea, not its text.  A block solves

    x'' = f(x, x', time),   x(0) = the input,   x'(0) = g(x(0)),

from 0 to 1 and returns x(1).  The solver is semi-implicit Euler: `network.inner_steps` steps of one evaluation of f.
All steps share the weights of f: more steps cost MACs and no parameters, and approximate the same flow.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.layers import Segments, conv, linear
from stepfront.trainers.networks.unet import UNet, check_resolution
from stepfront.trainers.networks.unet_blocks import Attention, Double, Halve, UNetParts, group_norm


def build_ode(settings: NetworkSettings, image_channels: int, resolution: int, width: float) -> OdeUNet:
    """Build the U-Net of ODE blocks at `width`.  Raises InputError as `build_unet` does."""
    check_resolution(settings, resolution)
    return OdeUNet(settings, image_channels, resolution, width)


def semi_implicit_euler(
    acceleration: Callable[[Tensor, Tensor], Tensor], x: Tensor, velocity: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Return x(1) and x'(1) of x'' = acceleration(x, x'), by `steps` steps of one evaluation each.

    The new velocity already moves the state: order 1 as Euler's method, but stable for oscillations.
    """
    h = 1 / steps
    for _ in range(steps):
        velocity = velocity + h * acceleration(x, velocity)
        x = x + h * velocity
    return x, velocity


class OdeUNet(UNet):
    """The U-Net of ODE blocks."""

    def __init__(self, settings: NetworkSettings, image_channels: int, resolution: int, width: float) -> None:
        super().__init__(settings, image_channels, resolution, width, UNetParts(OdeBlock, Halve, Double))


class OdeBlock(nn.Module):
    """A second-order ODE on the block's channels, after a 1x1 convolution to them and before optional attention.

    State and velocity are two segments of equal width, so a narrow block reads the first channels of both.
    """

    def __init__(self, inputs: Segments, outputs: int, time: Segments, attend: bool, settings: NetworkSettings) -> None:
        super().__init__()
        out, both = (outputs,), (outputs, outputs)
        # As a residual block's shortcut: at every width or at none.
        self.enter = conv(inputs, out, 1) if inputs != out else nn.Identity()
        self.start = conv(out, out, 1)
        self.norm1 = group_norm(both, settings)
        self.conv1 = conv(both, out, 3)
        self.time = linear(time, both)
        self.norm2 = group_norm(out, settings)
        self.dropout = nn.Dropout(settings.dropout)
        self.conv2 = conv(out, out, 3)
        self.attention = Attention(outputs, settings) if attend else nn.Identity()
        self.steps = settings.inner_steps
        # No velocity and no acceleration at first, so a block begins as the identity.
        for layer in (self.start, self.conv2):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        x = self.enter(x)
        scale, shift = self.time(time)[:, :, None, None].chunk(2, dim=1)
        x, _ = semi_implicit_euler(partial(self._acceleration, scale, shift), x, self.start(x), self.steps)
        return self.attention(x)

    def _acceleration(self, scale: Tensor, shift: Tensor, x: Tensor, velocity: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(torch.cat([x, velocity], dim=1))))
        return self.conv2(self.dropout(F.silu((1 + scale) * self.norm2(h) + shift)))
