"""UniPC (Zhao et al. 2023, arXiv 2302.04867) with B(h) = e^h - 1, as diffusers ships it.

Each step predicts the next state and, once the network has been called there, corrects it by that prediction.  The
corrector needs no call of its own and no state: the corrected state is x plus a sum of clean images,

    x^c_i = x_i + sum_j (corrected[i, j] - predicted[i - 1, j]) x0_j

so a step of both is one row of the table.  Step i of N is of order min(p, i + 1, N - i): a row depends on the number of
steps that follow, beside times 0 ... i + 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stepfront.trainers.diffusion.schedule import NoiseSchedule
from stepfront.trainers.diffusion.solvers import Coefficients, now_and_next
from stepfront.trainers.solvers.exponential import moments, weights


def unipc_2(schedule: NoiseSchedule, times: Tensor) -> Coefficients:
    """Return UniPC of order 2: the predictor of DPM-Solver++(2M), corrected."""
    return _unipc(schedule, times, 2)


def unipc_3(schedule: NoiseSchedule, times: Tensor) -> Coefficients:
    """Return UniPC of order 3."""
    return _unipc(schedule, times, 3)


def _unipc(schedule: NoiseSchedule, times: Tensor, order: int) -> Coefficients:
    alpha, sigma, alpha_next, sigma_next = now_and_next(schedule, times)
    steps, lam, a = len(times), schedule.half_log_snr(times), sigma_next / sigma
    orders = [min(order, i + 1, steps - i) for i in range(steps)]
    predicted, corrected = torch.zeros(steps, steps).to(times), torch.zeros(steps, steps).to(times)
    predicted[-1, -1] = 1.0  # h is infinite on the last step, which returns the clean image
    for q in range(1, order + 1):
        at = torch.tensor([i for i in range(steps - 1) if orders[i] == q], dtype=torch.long)
        if not len(at):
            continue
        h = lam[at + 1] - lam[at]
        earlier = [at - k for k in range(q)]
        nodes = torch.stack([(lam[j] - lam[at]) / h for j in earlier], dim=1)
        _fill(predicted, at, earlier, alpha_next[at, None] * _predictor(nodes, h))
        nodes = torch.cat([torch.ones_like(nodes[:, :1]), nodes], dim=1)
        _fill(corrected, at + 1, [at + 1, *earlier], alpha_next[at, None] * _corrector(nodes, h))
    before = torch.cat([torch.zeros_like(predicted[:1]), predicted[:-1]])
    clean = predicted + a[:, None] * (corrected - before)
    return Coefficients(alpha, sigma, torch.diag(a), clean, torch.zeros_like(a))


def _predictor(nodes: Tensor, h: Tensor) -> Tensor:
    """Return the weights of the clean images at `nodes` [M, q]: the start of the step, and steps before it."""
    if nodes.shape[1] != 2:
        return weights(nodes, h)
    share = 0.5 / nodes[:, 1]  # half the slope, in place of its exact weight
    return moments(h, 1) * torch.stack([1 - share, share], dim=1)


def _corrector(nodes: Tensor, h: Tensor) -> Tensor:
    """Return the weights of the clean images at `nodes` [M, q + 1]: the end of the step, its start, steps before it."""
    if nodes.shape[1] != 2:
        return weights(nodes, h)
    return moments(h, 1) * torch.full_like(nodes, 0.5)


def _fill(table: Tensor, rows: Tensor, columns: list[Tensor], numbers: Tensor) -> None:
    for k, column in enumerate(columns):
        table[rows, column] = numbers[:, k]
