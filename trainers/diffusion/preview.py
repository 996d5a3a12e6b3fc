"""Draw a few images of each width of a supernet, from the same noise."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from stepfront.trainers.data import Pixels, to_pixels
from stepfront.trainers.diffusion.conditioning import Condition
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import NoiseSchedule, time_grid
from stepfront.trainers.networks.supernet import Supernet

COLUMNS, STEPS = 8, 10


def width_samples(
    supernet: Supernet,
    schedule: NoiseSchedule,
    device: torch.device,
    seed: int,
    condition: Condition | None = None,
    decode: Callable[[Tensor], Tensor] | None = None,
) -> Pixels:
    """Return eight images per width after ten DDIM steps, narrowest first: [widths x 8, C, H, W] uint8.

    `decode` makes images of the latents of a supernet that works on those.
    """
    shape = (supernet.image_channels, supernet.resolution, supernet.resolution)
    denoisers = {width: partial(_predict, supernet, width) for width in supernet.widths}
    sampler = Sampler(denoisers, schedule, Noise(seed, shape), device, clip=decode is None, condition=condition)
    steps = min(STEPS, schedule.steps)
    times = tuple(time_grid(schedule, "trailing", steps).tolist())
    batches = [next(sampler.sample(Plan(times, (w,) * steps), COLUMNS, COLUMNS)) for w in supernet.widths]
    return np.concatenate([to_pixels(batch if decode is None else decode(batch)) for batch in batches])


def _predict(supernet: Supernet, width: float, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
    prediction: Tensor = supernet(x, t, width, label)
    return prediction
