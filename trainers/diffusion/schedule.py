"""Spread the times of a sampler's steps over the noise schedule, which trainers/noise_schedule.py defines."""

from __future__ import annotations

import math

import numpy as np

from stepfront.arrays import Array
from stepfront.errors import InputError
from stepfront.trainers.noise_schedule import NoiseSchedule, noise_schedule

__all__ = ["EDM_RHO", "NoiseSchedule", "noise_schedule", "quadratic_begin", "time_grid"]

MOST_SIGNAL = 0.05
"""alpha / sigma from which a `quadratic` grid may begin at pure noise; 0.8 T of the linear schedule has less."""

EDM_RHO = 7.0
"""How strongly `edm` grids are bent towards the clean end (Karras et al. 2022, table 1)."""


def time_grid(schedule: NoiseSchedule, grid: str, steps: int) -> Array:
    """Return `steps` times in sampling order (noise first).

    leading: 0, c, 2c, ... with c = T // steps (DDPM, DDIM); trailing: T - 1 first (Lin et al. 2023);
    quadratic: dense at the clean end (Song et al. 2020, appendix D.2), from 0.8 T or from where
    alpha / sigma is 0.05, the noisier of both; logsnr: equal steps of log-SNR;
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
        times = _distinct(np.round(_even(0, math.sqrt(quadratic_begin(schedule)), steps) ** 2))
    elif grid.endswith("_open"):
        times = _curved(schedule, grid.removesuffix("_open"), steps + 1)[1:]
    else:
        times = _curved(schedule, grid, steps)
    return times[::-1].astype(np.float64)


def quadratic_begin(schedule: NoiseSchedule) -> float:
    """Return the noisiest time of a `quadratic` grid, before it is rounded.

    0.8 T is noise enough on the linear schedule.  On others the image still shows there, and samples that begin with
    pure noise lose it.
    """
    return max(0.8 * schedule.steps, float(schedule.time_of(np.array(math.log(MOST_SIGNAL)))))


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
