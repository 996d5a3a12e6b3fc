"""DPM-Solver++(3M) (Lu et al. 2022, arXiv 2211.01095): third order from the clean images of three steps."""

from __future__ import annotations

import torch
from torch import Tensor

from stepfront.trainers.diffusion.schedule import NoiseSchedule
from stepfront.trainers.diffusion.solvers import Coefficients, dpmpp_2m
from stepfront.trainers.solvers.exponential import moments

SHORT = 15
"""Below this number of steps the last step but one is of second order, as in diffusers."""


def dpmpp_3m(schedule: NoiseSchedule, times: Tensor) -> Coefficients:
    """Return DPM-Solver++(3M) as its authors and diffusers ship it.

    The first two steps and the last are those of DPM-Solver++(2M); below 15 steps, the last but one is too.
    """
    second = dpmpp_2m(schedule, times)
    steps = len(times)
    end = steps - (2 if steps < SHORT else 1)
    if end <= 2:
        return second
    at = torch.arange(2, end)
    lam = schedule.half_log_snr(times)
    h, before, earlier = lam[at + 1] - lam[at], lam[at] - lam[at - 1], lam[at - 1] - lam[at - 2]
    r0, r1 = before / h, earlier / h
    m = moments(h, 3)
    # m0, m1, m2 are the clean images of this step and the two before; slopes in units of the step.
    one = torch.stack([1 / r0, -1 / r0, torch.zeros_like(r0)], dim=1)
    two = torch.stack([torch.zeros_like(r0), 1 / r1, -1 / r1], dim=1)
    curvature = (one - two) / (r0 + r1)[:, None]
    slope = one + r0[:, None] * curvature
    value = torch.zeros_like(one)
    value[:, 0] = 1.0
    # Half the third moment, as they ship it; the exact integral of the parabola takes all of it.
    numbers = m[:, :1] * value + m[:, 1:2] * slope + 0.5 * m[:, 2:] * curvature
    clean = second.clean.clone()
    alpha_next = second.alpha[at + 1]
    for k in range(3):
        clean[at, at - k] = alpha_next * numbers[:, k]
    return Coefficients(second.alpha, second.sigma, second.states, clean, second.noise)
