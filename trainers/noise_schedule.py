"""Compute the variance-preserving noise schedule: x_t = alpha_t x_0 + sigma_t eps with alpha_t^2 + sigma_t^2 = 1.

Times are training-time units: 0 is the least noisy, steps - 1 the noisiest.  Between integers the half log-SNR is
interpolated linearly, so learned and log-SNR grids need no rounding.  All is float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from stepfront.arrays import Array
from stepfront.trainers.config import DiffusionSettings

Numbers = TypeVar("Numbers", Array, Tensor)
"""A NumPy array, or a float64 tensor, through which gradients flow."""


@dataclass(frozen=True)
class NoiseSchedule:
    """alpha-bar (the squared alpha) at each training time, [steps].

    The methods take NumPy arrays, or float64 tensors: what is computed of tensors is differentiable in them.
    """

    alpha_bar: Array

    @property
    def steps(self) -> int:
        return len(self.alpha_bar)

    def half_log_snr(self, times: Numbers) -> Numbers:
        """Return lambda = log(alpha / sigma) at the given times."""
        if isinstance(times, Tensor):
            table = torch.from_numpy(self._table).to(times.device)
            return _at(table, times.clamp(0, self.steps - 1))
        return np.interp(times, np.arange(self.steps), self._table)

    def alpha(self, times: Numbers) -> Numbers:
        """Return the signal's share at the given times."""
        lam = self.half_log_snr(times)
        if isinstance(lam, Tensor):
            return torch.sqrt(1 / (1 + torch.exp(-2 * lam)))
        return np.sqrt(1 / (1 + np.exp(-2 * lam)))

    def sigma(self, times: Numbers) -> Numbers:
        """Return the noise's share at the given times."""
        lam = self.half_log_snr(times)
        if isinstance(lam, Tensor):
            return torch.sqrt(1 / (1 + torch.exp(2 * lam)))
        return np.sqrt(1 / (1 + np.exp(2 * lam)))

    def time_of(self, half_log_snr: Numbers) -> Numbers:
        """Return the times of given half log-SNRs, the inverse of `half_log_snr`."""
        if isinstance(half_log_snr, Tensor):
            rising = torch.from_numpy(self._table[::-1].copy()).to(half_log_snr.device)
            lam = half_log_snr.clamp(rising[0], rising[-1])
            before = (torch.searchsorted(rising, lam.detach()) - 1).clamp(0, max(self.steps - 2, 0))
            after = (before + 1).clamp(max=self.steps - 1)
            share = (lam - rising[before]) / (rising[after] - rising[before])
            return self.steps - 1 - (before + share)
        return np.interp(half_log_snr, self._table[::-1], np.arange(self.steps)[::-1])

    @cached_property
    def _table(self) -> Array:
        """The half log-SNR at each training time, [steps]."""
        return 0.5 * (np.log(self.alpha_bar) - np.log1p(-self.alpha_bar))


def _at(table: Tensor, places: Tensor) -> Tensor:
    """Interpolate linearly between the entries of a table; the entries around a place carry no gradient to it."""
    before = places.detach().floor().long().clamp(0, max(len(table) - 2, 0))
    after = (before + 1).clamp(max=len(table) - 1)
    return table[before] + (places - before) * (table[after] - table[before])


EDM_SIGMAS = (0.002, 80.0)
"""The noise levels sigma / alpha of EDM, from the least to the most (Karras et al. 2022, table 1)."""


def noise_schedule(settings: DiffusionSettings) -> NoiseSchedule:
    """Return the schedule of the settings.

    It has `linear` betas (Ho et al. 2020), betas with linear roots (`scaled_linear`), or the `cosine` alpha-bar
    (Nichol & Dhariwal 2021, eq. 17; betas < 0.999).  `flow` has the signal-to-noise ratios of
    x_s = (1 - s) x_0 + s eps at evenly spaced s, `shift`ed towards noise (Esser et al. 2024, eq. 23); `edm` has evenly
    spaced log(sigma / alpha) from log 0.002 to log 80 (Karras et al. 2022, table 1).
    """
    if settings.schedule == "flow":
        even = np.arange(1, settings.steps + 1) / (settings.steps + 1)  # at s = 1 there would be no signal
        s = settings.shift * even / (1 + (settings.shift - 1) * even)
        return NoiseSchedule((1 - s) ** 2 / ((1 - s) ** 2 + s**2))
    if settings.schedule == "edm":
        return NoiseSchedule(1 / (1 + np.geomspace(*EDM_SIGMAS, settings.steps) ** 2))
    if settings.schedule == "linear":
        betas = np.linspace(settings.beta_first, settings.beta_last, settings.steps)
    elif settings.schedule == "scaled_linear":
        betas = np.linspace(math.sqrt(settings.beta_first), math.sqrt(settings.beta_last), settings.steps) ** 2
    else:
        edges = np.cos((np.arange(settings.steps + 1) / settings.steps + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = np.minimum(1 - edges[1:] / edges[:-1], 0.999)
    return NoiseSchedule(np.cumprod(1 - betas, dtype=np.float64))
