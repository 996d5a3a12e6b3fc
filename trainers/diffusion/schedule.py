"""Compute the variance-preserving noise schedule, and grids of times.

The schedule is x_t = alpha_t x_0 + sigma_t eps with alpha_t^2 + sigma_t^2 = 1, in float64.  Times are training-time
units: 0 is the least noisy, steps - 1 the noisiest.  Between integers the half log-SNR is interpolated linearly, so
learned and log-SNR grids need no rounding.
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
from stepfront.errors import InputError
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


def noise_schedule(settings: DiffusionSettings) -> NoiseSchedule:
    """Return the schedule of the settings.

    It has `linear` betas (Ho et al. 2020), betas with linear roots (`scaled_linear`), or the `cosine` alpha-bar
    (Nichol & Dhariwal 2021, eq. 17; betas < 0.999).
    """
    if settings.schedule == "linear":
        betas = np.linspace(settings.beta_first, settings.beta_last, settings.steps)
    elif settings.schedule == "scaled_linear":
        betas = np.linspace(math.sqrt(settings.beta_first), math.sqrt(settings.beta_last), settings.steps) ** 2
    else:
        edges = np.cos((np.arange(settings.steps + 1) / settings.steps + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = np.minimum(1 - edges[1:] / edges[:-1], 0.999)
    return NoiseSchedule(np.cumprod(1 - betas, dtype=np.float64))


EDM_RHO = 7.0
"""How strongly `edm` grids are bent towards the clean end (Karras et al. 2022, table 1)."""


def time_grid(schedule: NoiseSchedule, grid: str, steps: int) -> Array:
    """Return `steps` times in sampling order (noise first).

    leading: 0, c, 2c, ... with c = T // steps (DDPM, DDIM); trailing: T - 1 first (Lin et al. 2023);
    quadratic: dense at the clean end (Song et al. 2020, appendix D.2), from 0.8 T; logsnr: equal steps of log-SNR;
    edm: equal steps of (sigma / alpha)^(1/7) (Karras et al. 2022, eq. 5).

    An `_open` grid has one more point of its rule.  The one at time 0 stands for the clean image and is left out, so no
    step is spent there.  quadratic_open begins at T - 1.
    Raises InputError for more steps than there are training times.
    """
    total = schedule.steps
    times: Array
    if steps > total:
        raise InputError(f"{steps} sampling steps of only {total} training times; give at most {total}")
    if grid == "leading":
        times = np.arange(steps, dtype=np.float64) * (total // steps)
    elif grid == "trailing":
        times = np.round(np.arange(total, 0, -total / steps))[:steps][::-1] - 1
    elif grid == "quadratic":
        times = _distinct(np.round(_even(0, math.sqrt(0.8 * total), steps) ** 2))
    elif grid.endswith("_open"):
        times = _curved(schedule, grid.removesuffix("_open"), steps + 1)[1:]
    else:
        times = _curved(schedule, grid, steps)
    return times[::-1].astype(np.float64)


def _curved(schedule: NoiseSchedule, rule: str, points: int) -> Array:
    """Return the points of a rule from time 0 to T - 1, unrounded."""
    if rule == "quadratic":
        return (schedule.steps - 1) * _even(0, 1, points) ** 2
    clean, noisy = schedule.half_log_snr(np.array([0.0, schedule.steps - 1.0]))
    if rule == "logsnr":
        return schedule.time_of(_even(clean, noisy, points))
    roots = _even(math.exp(-clean / EDM_RHO), math.exp(-noisy / EDM_RHO), points)
    return schedule.time_of(-EDM_RHO * np.log(roots))


def _even(clean: float, noisy: float, steps: int) -> Array:
    # A single step must begin at noise.
    return np.linspace(clean, noisy, steps) if steps > 1 else np.array([noisy])


def _distinct(times: Array) -> Array:
    # Squares of a dense grid round to the same integer near zero; a step of zero length would divide by zero.
    for i in range(1, len(times)):
        times[i] = max(times[i], times[i - 1] + 1)
    return times
