"""Measure the gap table: by how much the denoising loss of each step grows at each width, on held-out images.

One pass over the images is enough; nothing is sampled.  The gap is the absolute growth of the noise-prediction error.
Weighting it to the error of the clean image ranks plans far worse (see docs/search.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from stepfront.trainers.data import Labels, to_float
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.schedule import NoiseSchedule, noise_schedule
from stepfront.trainers.diffusion.types import Denoiser
from stepfront.trainers.networks.card import SupernetCard
from stepfront.trainers.networks.supernet_files import supernet_from_weights


@torch.inference_mode()
def gap_table(
    denoisers: Mapping[float, Denoiser],
    schedule: NoiseSchedule,
    times: Sequence[float],
    images: NDArray[np.generic],
    device: torch.device,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return [steps, widths]: mean squared error of the predicted noise minus that of the widest, on equal noise.

    `images` are held out, uint8 [N, C, H, W], or latents in float32; widths in ascending order.  For a
    class-conditional network it is the loss of the conditional prediction, which was trained, whatever the guidance:
    pass denoisers with the labels.
    """
    x0 = to_float(images).to(device)
    widths = sorted(denoisers)
    table = np.zeros((len(times), len(widths)))
    noise = Noise(seed, tuple(x0.shape[1:]))
    for row, time in enumerate(times):
        eps = torch.from_numpy(noise.after_step(range(len(x0)), row)).to(device)
        alpha, sigma = (float(f(np.array([time]))[0]) for f in (schedule.alpha, schedule.sigma))
        x, t = alpha * x0 + sigma * eps, torch.full((len(x0),), float(time), device=device)
        for column, width in enumerate(widths):
            table[row, column] = float((denoisers[width](x, t) - eps).double().square().mean())
    return table - table[:, -1:]


def supernet_gap(
    card: SupernetCard,
    weights: Mapping[str, np.ndarray],
    times: Sequence[float],
    images: NDArray[np.generic],
    labels: Labels | None,
    device: torch.device,
) -> NDArray[np.float64]:
    """Return the gap table of a supernet; `labels` [N] are those of the images, for a class-conditional one."""
    supernet = supernet_from_weights(card, {k: torch.from_numpy(np.array(v)) for k, v in weights.items()}).to(device)
    subnets = {width: supernet.subnet(width) for width in card.network.widths}
    denoisers: dict[float, Denoiser] = {**subnets}
    if labels is not None:
        known = torch.from_numpy(np.array(labels)).to(device)
        denoisers = {width: partial(subnet, label=known) for width, subnet in subnets.items()}
    return gap_table(denoisers, noise_schedule(card.diffusion), times, images, device)
