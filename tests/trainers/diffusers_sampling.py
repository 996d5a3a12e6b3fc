"""Sample with a multistep scheduler of diffusers on our noise schedule, as the reference of our solvers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from stepfront.trainers.diffusion.schedule import Array, NoiseSchedule


def linspace_grid(steps: int) -> Array:
    """Return the grid that diffusers calls linspace, as its multistep solvers use it."""
    return np.linspace(0, 999, steps + 1).round()[:0:-1]


def sample_with(
    scheduler: Any, schedule: NoiseSchedule, denoise: Any, start: np.ndarray, steps: int, end: float = 0.0
) -> tuple[Array, Tensor]:
    """Return the times that the scheduler takes, and its last state [N, 2].

    Its sigmas are ours in float64: its own are rounded to float32.  The last step ends at the sigma `end`.
    """
    scheduler.set_timesteps(steps)
    times = scheduler.timesteps.numpy()
    share = schedule.alpha_bar[times]
    scheduler.sigmas = torch.from_numpy(np.append(np.sqrt((1 - share) / share), end))
    x = torch.from_numpy(start)
    for t in scheduler.timesteps:
        x = scheduler.step(denoise(x, t.expand(len(x))), t, x).prev_sample
    return times, x
