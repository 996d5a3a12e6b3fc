"""Define solvers of the reverse process: functions from a noise schedule and times to a table of coefficients.

Every solver is linear in what it reads: the states and the predicted clean images of this and all earlier steps, and
new noise.  With x_0 the starting noise, step i is

    x_{i+1} = sum_{j <= i} states[i, j] x_j + sum_{j <= i} clean[i, j] x0_j + noise[i] z_i

where x0_j = (x_j - sigma_j eps_j) / alpha_j is the clean image that the network's eps implies at step j.  The
coefficients depend on the times alone and are differentiable in them, so sampling and learning share one table.
A step that a plan skips is absent from `times`: the solver then spans the gap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from stepfront.plugins import SOLVERS
from stepfront.trainers.diffusion.schedule import NoiseSchedule


@dataclass(frozen=True)
class Coefficients:
    """The table of N steps, all float64; `alpha` and `sigma` are those at the step's own time.

    `alpha`, `sigma` and `noise` are [N].  `states` and `clean` are [N, N], zero above the diagonal: row i holds what
    step i reads of x_0 ... x_i, and of the clean images that were predicted of them.
    """

    alpha: Tensor
    sigma: Tensor
    states: Tensor
    clean: Tensor
    noise: Tensor

    @staticmethod
    def of_columns(
        alpha: Tensor, sigma: Tensor, a: Tensor, b: Tensor, c: Tensor | None = None, noise: Tensor | None = None
    ) -> Coefficients:
        """Return the table of x_next = a x + b x0 + c x0_before + noise z, given as columns [N].

        `c` multiplies the clean image that the step before predicted; the first step has none, so c[0] is not read.
        None stands for zeros.
        """
        clean = torch.diag(b)
        if c is not None and len(c) > 1:
            clean = clean + torch.diag(c[1:], -1)
        return Coefficients(alpha, sigma, torch.diag(a), clean, torch.zeros_like(a) if noise is None else noise)


class Solver(Protocol):
    """A function that turns the noise schedule and the times of a plan's steps into coefficients.

    `times` [N], float64, decrease from noise to image, in training-time units, and need not be whole numbers.  The
    clean image (alpha 1, sigma 0) comes after the last time.  N is 1 at least.

    The function is pure, and differentiable in the times where it can be.  All coefficients are finite.  `noise` is 0
    for a deterministic solver.  Plans that begin alike share states where their rows are equal, so a row should read
    times up to its end alone, and the number of steps to the end only where the method needs it.
    """

    def __call__(self, schedule: NoiseSchedule, times: Tensor) -> Coefficients:
        """Return the coefficients of all steps."""
        ...


def find_solver(name: str) -> Solver:
    """Return a solver: one of ours, an entry point's, or that of an import path.

    Raises InputError when there is none.
    """
    return SOLVERS.load(name)


def ddim(schedule: NoiseSchedule, times: Tensor) -> Coefficients:
    """Return DDIM (Song et al. 2020, eq. 12 with eta 0): x_next = alpha' x0 + sigma' eps."""
    alpha, sigma, alpha_next, sigma_next = now_and_next(schedule, times)
    a = sigma_next / sigma
    return Coefficients.of_columns(alpha, sigma, a, alpha_next - a * alpha)


def ddpm(schedule: NoiseSchedule, times: Tensor) -> Coefficients:
    """Return ancestral sampling (Ho et al. 2020, eq. 6 and 7) with the posterior's variance."""
    return _ancestral(schedule, times, large=False)


def ddpm_large(schedule: NoiseSchedule, times: Tensor) -> Coefficients:
    """Return ancestral sampling with the forward variance beta (`fixedlarge` of Ho et al. and DDSM)."""
    return _ancestral(schedule, times, large=True)


def _ancestral(schedule: NoiseSchedule, times: Tensor, large: bool) -> Coefficients:
    alpha, sigma, alpha_next, sigma_next = now_and_next(schedule, times)
    retained = (alpha / alpha_next) ** 2  # alpha of this (possibly long) step
    beta = 1 - retained
    a = torch.sqrt(retained) * sigma_next**2 / sigma**2
    b = alpha_next * beta / sigma**2
    variance = beta if large else beta * sigma_next**2 / sigma**2
    # The last step returns the mean.
    noise = torch.cat([torch.sqrt(variance[:-1]), torch.zeros_like(a[-1:])])
    return Coefficients.of_columns(alpha, sigma, a, b, noise=noise)


def dpmpp_2m(schedule: NoiseSchedule, times: Tensor) -> Coefficients:
    """Return DPM-Solver++(2M) (Lu et al. 2022, algorithm 2); first and last step are of first order."""
    alpha, sigma, alpha_next, sigma_next = now_and_next(schedule, times)
    a = sigma_next / sigma
    b = alpha_next - a * alpha
    if len(times) < 3:
        return Coefficients.of_columns(alpha, sigma, a, b)
    h = torch.diff(schedule.half_log_snr(times))
    r = h[:-1] / h[1:]  # the step before against this one, for all steps but the first and the last
    zero = torch.zeros_like(a[:1])
    # D = (1 + 1/2r) x0 - 1/2r x0_before replaces the x0 of DDIM.
    before = torch.cat([zero, 1 / (2 * r), zero])
    return Coefficients.of_columns(alpha, sigma, a, b * (1 + before), -b * before)


def now_and_next(schedule: NoiseSchedule, times: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return alpha and sigma at each time, and alpha and sigma at the end of each step; the last ends at the image."""
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    return (
        alpha,
        sigma,
        torch.cat([alpha[1:], torch.ones_like(alpha[:1])]),
        torch.cat([sigma[1:], torch.zeros_like(sigma[:1])]),
    )
