"""Integrate polynomials through predicted clean images exactly, as exponential integrators do.

In lambda = log(alpha / sigma) the clean prediction D drives the state by

    x' = (sigma' / sigma) x + alpha' integral_0^1 h e^{h (s - 1)} D(s) ds,      s = (lambda - lambda_start) / h

with h the length of the step (Lu et al. 2022, eq. 8 in s).  Solvers differ in the polynomial that stands for D.
"""

from __future__ import annotations

import torch
from torch import Tensor


def weights(nodes: Tensor, h: Tensor) -> Tensor:
    """Return the weights [M, q] of the values at `nodes` [M, q], in s, for M steps of length `h` [M].

    They are the integrals of h e^{h (s - 1)} times the Lagrange polynomials of the nodes: exact where D is a polynomial
    of degree q - 1.
    """
    powers = torch.stack([nodes**k for k in range(nodes.shape[1])], dim=1)
    return torch.linalg.solve(powers, moments(h, nodes.shape[1]))


def moments(h: Tensor, count: int) -> Tensor:
    """Return the integrals of h e^{h (s - 1)} s^k over the step for k = 0 ... count - 1, [M, count]."""
    found = [-torch.expm1(-h)]
    for k in range(1, count):
        # By parts, which cancels digits for short steps; their series converges fast.
        found.append(torch.where(h < 0.5, _series(h, k), 1 - k / h * found[-1]))
    return torch.stack(found, dim=1)


def _series(h: Tensor, k: int) -> Tensor:
    term, total = h / (k + 1), torch.zeros_like(h)
    for m in range(16):
        total = total + term
        term = -term * h / (k + m + 2)
    return total
