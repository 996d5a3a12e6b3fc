"""tAB-DEIS (Zhang & Chen 2022, arXiv 2204.13902): predicted noise as a polynomial in log-SNR, integrated exactly.

In rho = sigma / alpha the noise drives x / alpha by d(x / alpha) / d rho = eps, so

    x' = (alpha' / alpha) x + alpha' sum_k c_k eps_{i-k},      c_k = integral of L_k(log rho) d rho over the step

with L_k the Lagrange polynomials of this step's log rho and those before it (`logrho` in diffusers).  Predicted noise
is written as the state and the clean image that it implies, eps_j = (x_j - alpha_j x0_j) / sigma_j.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stepfront.trainers.diffusion.schedule import NoiseSchedule
from stepfront.trainers.diffusion.solvers import Coefficients, now_and_next


def deis_2(schedule: NoiseSchedule, times: Tensor) -> Coefficients:
    """Return tAB-DEIS of order 2."""
    return _deis(schedule, times, 2)


def deis_3(schedule: NoiseSchedule, times: Tensor) -> Coefficients:
    """Return tAB-DEIS of order 3."""
    return _deis(schedule, times, 3)


def _deis(schedule: NoiseSchedule, times: Tensor, order: int) -> Coefficients:
    alpha, sigma, alpha_next, sigma_next = now_and_next(schedule, times)
    steps, lam = len(times), schedule.half_log_snr(times)
    share = torch.zeros(steps, steps).to(times)  # the c_k
    share[-1, -1] = -sigma[-1] / alpha[-1]  # log rho is infinite at the clean image: the last step is of first order
    for i in range(steps - 1):
        nodes, h = [i - k for k in range(min(order, i + 1))], lam[i + 1] - lam[i]
        powers = torch.stack([((lam[nodes] - lam[i]) / h) ** k for k in range(len(nodes))])
        weights = torch.linalg.solve(powers, _moments(h, len(nodes)))
        for k, j in enumerate(nodes):
            share[i, j] = -sigma[i] / alpha[i] * weights[k]
    eps = alpha_next[:, None] * share
    states = torch.diag(alpha_next / alpha) + eps / sigma
    return Coefficients(alpha, sigma, states, -eps * alpha / sigma, torch.zeros_like(alpha))


def _moments(h: Tensor, count: int) -> Tensor:
    """Return the integrals of h e^{-h s} s^k over 0 <= s <= 1 for k = 0 ... count - 1."""
    found = [-torch.expm1(-h)]
    for k in range(1, count):
        # By parts, which cancels digits for short steps; their series converges fast.
        found.append(_series(h, k) if h < 0.5 else k / h * found[-1] - torch.exp(-h))
    return torch.stack(found)


def _series(h: Tensor, k: int) -> Tensor:
    power, total = h, torch.zeros_like(h)
    for m in range(16):
        total = total + power / (k + m + 1)
        power = -power * h / (m + 1)
    return total
