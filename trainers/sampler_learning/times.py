"""Map free parameters to falling times with a least gap, and hand grids back to parameters.

The N gaps between the N times and the clean image (time 0) are a softmax, so the times fall by construction:

    t_i = t_0 - i g - (t_0 - N g) c_i,     c = [0, cumsum(softmax(theta))] without its last entry

with g the least gap.  The network may be told other times than the solver uses (LD3's decoupled times): its offsets
stay within half of the gaps beside a time, so that they fall too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stepfront.errors import InputError


def falling_times(theta: Tensor, first: Tensor | float, gap: float) -> Tensor:
    """Return the times [N] float64 of the logits `theta` [N], from `first` on, at least `gap` apart."""
    steps = len(theta)
    index = torch.arange(steps, dtype=theta.dtype, device=theta.device)
    done = torch.cat([theta.new_zeros(1), torch.softmax(theta, 0).cumsum(0)[:-1]])
    return first - gap * index - (first - steps * gap) * done


def logits_of(times: Tensor, gap: float) -> Tensor:
    """Return the logits [N] whose times from `times[0]` on are `times`; gaps that are too small become the least."""
    first = times[0]
    gaps = -torch.diff(times, append=times.new_zeros(1))
    shares = (gaps - gap) / (first - len(times) * gap)
    logits = shares.clamp_min(1e-3 / len(times)).log()
    return logits - logits.mean()


def network_times(times: Tensor, offsets: Tensor, noisiest: float) -> Tensor:
    """Return the times [N] that the network is told: `times` plus offsets of at most half the smaller gap beside."""
    gaps = -torch.diff(times, append=times.new_zeros(1))
    before = torch.cat([gaps[:1], gaps[:-1]])
    limit = 0.5 * torch.minimum(before, gaps)
    moved = times + torch.minimum(torch.maximum(offsets, -limit), limit)
    return moved.clamp(0.0, noisiest)


def check_gap(steps: int, gap: float, noisiest: float) -> None:
    """Raise InputError when so many steps do not fit at this distance."""
    if steps * gap >= noisiest:
        most = noisiest / steps
        raise InputError(
            f"{steps} steps at least {gap:g} apart do not fit into the times {noisiest:g} to 0; "
            f"give a learning.least_gap below {most:.3g}"
        )
