"""Define the solvers of the reverse process: each turns a noise schedule and times into a table of coefficients.

Every solver is linear in what it reads, so a step is

    x_next = a x + b x0 + c x0_before + d z,      x0 = (x - sigma eps) / alpha

with x0 the clean image that the network's eps implies, x0_before that of the step before and z new noise.  The
coefficients depend on the times alone.  They are computed once, in float64, so the sampling loop only applies them.
A step that a plan skips is absent from `times`: the solver then spans the gap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from stepfront.plugins import SOLVERS
from stepfront.trainers.diffusion.schedule import Array, NoiseSchedule


@dataclass(frozen=True)
class Coefficients:
    """One row per step, all [N] float64; `alpha` and `sigma` are those at the step's own time."""

    alpha: Array
    sigma: Array
    a: Array
    b: Array
    c: Array
    d: Array


class Solver(Protocol):
    """A function that turns the noise schedule and the times of a plan's steps into coefficients.

    `times` [N] decrease from noise to image, in training-time units, and need not be whole numbers.  The clean image
    comes after the last time.  N is 1 at least.

    The function is pure.  Row i depends on times 0 to i + 1 alone, and on whether i is the last row: states before a
    step are shared between plans that begin alike.  All coefficients are finite.  `d` is 0 for a deterministic solver.
    """

    def __call__(self, schedule: NoiseSchedule, times: Array) -> Coefficients:
        """Return the coefficients of all steps."""
        ...


def find_solver(name: str) -> Solver:
    """Return a solver: one of ours, an entry point's, or that of an import path.

    Raises InputError when there is none.
    """
    return SOLVERS.load(name)


def ddim(schedule: NoiseSchedule, times: Array) -> Coefficients:
    """Return DDIM (Song et al. 2020, eq. 12 with eta 0): x_next = alpha' x0 + sigma' eps."""
    alpha, sigma, alpha_next, sigma_next = _now_and_next(schedule, times)
    a = sigma_next / sigma
    zero = np.zeros_like(a)
    return Coefficients(alpha, sigma, a, alpha_next - a * alpha, zero, zero)


def ddpm(schedule: NoiseSchedule, times: Array) -> Coefficients:
    """Return ancestral sampling (Ho et al. 2020, eq. 6 and 7) with the posterior's variance."""
    return _ancestral(schedule, times, large=False)


def ddpm_large(schedule: NoiseSchedule, times: Array) -> Coefficients:
    """Return ancestral sampling with the forward variance beta (`fixedlarge` of Ho et al. and DDSM)."""
    return _ancestral(schedule, times, large=True)


def _ancestral(schedule: NoiseSchedule, times: Array, large: bool) -> Coefficients:
    alpha, sigma, alpha_next, sigma_next = _now_and_next(schedule, times)
    retained = (alpha / alpha_next) ** 2  # alpha of this (possibly long) step
    beta = 1 - retained
    a = np.sqrt(retained) * sigma_next**2 / sigma**2
    b = alpha_next * beta / sigma**2
    variance = beta if large else beta * sigma_next**2 / sigma**2
    d = np.sqrt(variance)
    d[-1] = 0.0  # the last step returns the mean
    return Coefficients(alpha, sigma, a, b, np.zeros_like(a), d)


def dpmpp_2m(schedule: NoiseSchedule, times: Array) -> Coefficients:
    """Return DPM-Solver++(2M) (Lu et al. 2022, algorithm 2); first and last step are of first order."""
    alpha, sigma, alpha_next, sigma_next = _now_and_next(schedule, times)
    first_order = ddim(schedule, times)
    if len(times) < 3:
        return first_order
    lam = schedule.half_log_snr(times)
    h = np.diff(lam)
    r = h[:-1] / h[1:]  # this step's length against the one before
    inner = slice(1, -1)
    b, c = first_order.b.copy(), np.zeros_like(first_order.b)
    b[inner] = first_order.b[inner] * (1 + 1 / (2 * r))
    # c multiplies the clean image of the step before: D = (1 + 1/2r) x0 - 1/2r x0_before, with 1/r = h_before^-1 h
    c[inner] = -first_order.b[inner] / (2 * r)
    return Coefficients(alpha, sigma, first_order.a, b, c, np.zeros_like(b))


def _now_and_next(schedule: NoiseSchedule, times: Array) -> tuple[Array, Array, Array, Array]:
    # After the last time comes the clean image: alpha 1, sigma 0.
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    return alpha, sigma, np.append(alpha[1:], 1.0), np.append(sigma[1:], 0.0)
