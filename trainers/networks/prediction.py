"""Run networks that predict something other than the noise as networks that predict the noise.

Everything outside the training reads the predicted noise of x_t = alpha x_0 + sigma eps (alpha^2 + sigma^2 = 1).  Each
kind of network gives it by four numbers, functions of lambda = log(alpha / sigma) and the time alone:

    eps = of_x x_t + of_output network(scale x_t, told)

- v (Salimans & Ho 2022, arXiv 2202.00512): the output is alpha eps - sigma x_0.
- sample: the output is x_0.
- flow (rectified flow, arXiv 2209.03003): the output is eps - x_0 at s = sigma / (alpha + sigma), where the state of
  the flow, (1 - s) x_0 + s eps, is x_t / (alpha + sigma); the network is told s times the number of times.
- edm (Karras et al. 2022, table 1): the output is F of D = c_skip x + c_out F(c_in x, c_noise) with x = x_t / alpha at
  noise level sigma / alpha; the network is told c_noise = log(sigma / alpha) / 4.

Guidance mixes predictions with weights whose sum is 1, so it may be applied before or after the conversion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.networks.deep_features import FeatureCalls, splits
from stepfront.trainers.noise_schedule import noise_schedule


class Conversion(NamedTuple):
    """How the output of a network becomes noise; each of the shape of the times."""

    scale: Tensor
    """Factor of the noisy image that the network reads."""
    told: Tensor
    """The time that the network is told."""
    of_x: Tensor
    of_output: Tensor


def conversion(diffusion: DiffusionSettings, half_log_snr: Tensor, times: Tensor) -> Conversion:
    """Return the conversion of the settings' prediction at `times` and their half log-SNR, in the latter's type."""
    alpha, sigma = (2 * half_log_snr).sigmoid().sqrt(), (-2 * half_log_snr).sigmoid().sqrt()
    one = torch.ones_like(alpha)
    if diffusion.prediction == "v":
        return Conversion(one, times, sigma, alpha)
    if diffusion.prediction == "sample":
        return Conversion(one, times, 1 / sigma, -alpha / sigma)
    if diffusion.prediction == "flow":
        scale = 1 / (alpha + sigma)
        return Conversion(scale, diffusion.steps * sigma * scale, scale, alpha * scale)
    if diffusion.prediction == "edm":
        std = diffusion.data_std
        scale = (sigma**2 + (std * alpha) ** 2).rsqrt()
        return Conversion(scale, -half_log_snr / 4, sigma * scale**2, -std * alpha * scale)
    return Conversion(one, times, 0 * one, one)


@dataclass(frozen=True)
class Targets:
    """What a network of some prediction reads and learns at every training time: float32 [T], on one device.

    Its target is of_x0 x_0 + of_noise eps.  An error of its output is `in_noise` times as large in the noise.
    """

    scale: Tensor
    told: Tensor
    of_x0: Tensor
    of_noise: Tensor
    in_noise: Tensor

    @staticmethod
    def of(diffusion: DiffusionSettings, device: torch.device) -> Targets:
        """Return the targets of the settings' prediction."""
        times = torch.arange(diffusion.steps, dtype=torch.float64)
        schedule = noise_schedule(diffusion)
        at = conversion(diffusion, schedule.half_log_snr(times), times)
        of_x0 = -at.of_x * schedule.alpha(times) / at.of_output
        of_noise = (1 - at.of_x * schedule.sigma(times)) / at.of_output
        return Targets(*(each.float().to(device) for each in (at.scale, at.told, of_x0, of_noise, at.of_output.abs())))

    def at(self, t: Tensor, x: Tensor, x0: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the network reads of x [B, C, H, W], the times that it is told [B], and its target."""
        scale, of_x0, of_noise = (each[t, None, None, None] for each in (self.scale, self.of_x0, self.of_noise))
        return scale * x, self.told[t], of_x0 * x0 + of_noise * eps


class NoiseConversion(nn.Module):
    """Calls a network and returns the noise that its output implies."""

    _half_log_snr: Tensor
    _follows: Tensor

    def __init__(self, diffusion: DiffusionSettings) -> None:
        super().__init__()
        self._diffusion = diffusion
        times = np.arange(diffusion.steps, dtype=np.float64)
        self._exact = torch.from_numpy(noise_schedule(diffusion).half_log_snr(times)).float()
        self.register_buffer("_half_log_snr", self._exact, persistent=False)
        self.register_buffer("_follows", torch.empty(0, device="cpu"), persistent=False)  # as precise as the network

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> NoiseConversion:
        super()._apply(fn, recurse)
        # Beside a network in bfloat16 the conversion stays in float32.
        self._half_log_snr = self._exact.to(self._half_log_snr.device)
        return self

    def forward(self, network: Callable[..., Tensor], x: Tensor, t: Tensor, *label: Tensor) -> Tensor:
        """Return the noise [B, C, H, W] in x [B, C, H, W] at times [B], of the network's output."""
        if self._diffusion.prediction == "epsilon":
            return network(x, t, *label)
        last = len(self._half_log_snr) - 1
        times = t.float().clamp(0, last)
        before = times.floor().long().clamp(max=max(last - 1, 0))
        lam = torch.lerp(self._half_log_snr[before], self._half_log_snr[(before + 1).clamp(max=last)], times - before)
        at = conversion(self._diffusion, lam[:, None, None, None], times[:, None, None, None])
        output = network((at.scale * x).to(self._follows.dtype), at.told.flatten(), *label)
        return at.of_x * x + at.of_output * output


class PredictsNoise(nn.Module):
    """A plain network of another prediction as one of the noise."""

    reads_float32 = True
    """x comes in float32 in every precision: where alpha is small, rounding it would change the noise by more than
    the image."""

    def __init__(self, network: nn.Module, to_noise: NoiseConversion) -> None:
        super().__init__()
        self.network, self.to_noise = network, to_noise

    def forward(self, x: Tensor, t: Tensor, *label: Tensor) -> Tensor:
        """Return the noise in x [B, C, H, W] at times [B]; label [B] where there are classes."""
        noise: Tensor = self.to_noise(self.network, x, t, *label)
        return noise

    @property
    def splits(self) -> bool:
        """Whether the network can reuse deep features (deep_features.py)."""
        return splits(self.network)

    def with_features(self, x: Tensor, t: Tensor, *label: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noise and the network's deep features."""
        calls = FeatureCalls(self.network, (), keeps=True)
        return self.to_noise(calls, x, t, *label), calls.kept[0]

    def reusing(self, deep: Tensor, x: Tensor, t: Tensor, *label: Tensor) -> Tensor:
        """Return the noise of the outermost level on deep features of another call."""
        noise: Tensor = self.to_noise(FeatureCalls(self.network, [deep], keeps=False), x, t, *label)
        return noise
