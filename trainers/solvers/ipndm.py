"""iPNDM (Zhang & Chen 2022, arXiv 2204.13902, from Liu et al. 2022): Adams-Bashforth weights on predicted noise.

    x' = (alpha' / alpha) x - (alpha' sigma / alpha - sigma') sum_k w_k eps_{i-k}

The weights are constant, whatever the lengths of the steps.  Predicted noise is written as the state and the clean
image that it implies, eps_j = (x_j - alpha_j x0_j) / sigma_j: a table of two histories.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stepfront.trainers.diffusion.schedule import NoiseSchedule
from stepfront.trainers.diffusion.solvers import Coefficients, now_and_next

WEIGHTS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Adams-Bashforth weights of orders 1 to 4, latest first; step i is of order i + 1 at most."""


def ipndm_2(schedule: NoiseSchedule, times: Tensor) -> Coefficients:
    """Return iPNDM of order 2."""
    return _ipndm(schedule, times, 2)


def ipndm_3(schedule: NoiseSchedule, times: Tensor) -> Coefficients:
    """Return iPNDM of order 3."""
    return _ipndm(schedule, times, 3)


def ipndm_4(schedule: NoiseSchedule, times: Tensor) -> Coefficients:
    """Return iPNDM of order 4."""
    return _ipndm(schedule, times, 4)


def _ipndm(schedule: NoiseSchedule, times: Tensor, order: int) -> Coefficients:
    alpha, sigma, alpha_next, sigma_next = now_and_next(schedule, times)
    share = torch.zeros(len(times), len(times)).to(times)
    for i in range(len(times)):
        for k, weight in enumerate(WEIGHTS[min(order, i + 1) - 1]):
            share[i, i - k] = weight
    eps = -(alpha_next * sigma / alpha - sigma_next)[:, None] * share
    states = torch.diag(alpha_next / alpha) + eps / sigma
    return Coefficients(alpha, sigma, states, -eps * alpha / sigma, torch.zeros_like(alpha))
