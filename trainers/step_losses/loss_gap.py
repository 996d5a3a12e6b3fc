"""Measure the gap table: by how much the denoising loss of each step grows at each width, on held-out images.

One pass over the images is enough; nothing is sampled.  The gap is the absolute growth of the noise-prediction error.
Weighting it to the error of the clean image ranks plans far worse (see docs/search.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stepfront.trainers.data import Labels, to_float
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.schedule import NoiseSchedule, noise_schedule
from stepfront.trainers.diffusion.types import Denoiser
from stepfront.trainers.networks.card import SupernetCard
from stepfront.trainers.networks.deep_features import SplitNetwork
from stepfront.trainers.networks.supernet_files import supernet_from_weights
from stepfront.trainers.variant import Size, Variant

Column = TypeVar("Column", bound=float | tuple[float, float])
"""A width, or a width and a depth."""


@torch.inference_mode()
def gap_table(
    denoisers: Mapping[Column, Denoiser],
    schedule: NoiseSchedule,
    times: Sequence[float],
    images: NDArray[np.generic],
    device: torch.device,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return [steps, widths]: mean squared error of the predicted noise minus that of the widest, on equal noise.

    `images` are held out, uint8 [N, C, H, W], or latents in float32; widths (or other keys, the widest network's last)
    in ascending order.  For a class-conditional network it is the loss of the conditional prediction, which was
    trained, whatever the guidance: pass denoisers with the labels.
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


@torch.inference_mode()
def reuse_gap(
    networks: Mapping[float, Callable[..., Tensor]],
    schedule: NoiseSchedule,
    times: Sequence[float],
    images: NDArray[np.generic],
    device: torch.device,
    label: Sequence[Tensor] = (),
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return [steps, widths]: mean squared error of the noise that a step which reuses features adds to the full one's.

    The features are those of the step before, at the same images under the same noise: what a trajectory would reach
    that predicts without an error.  The first step has none to reuse, and its row is 0.
    """
    x0 = to_float(images).to(device)
    table = np.zeros((len(times), len(networks)))
    noise = Noise(seed, tuple(x0.shape[1:]))
    for row, (before, time) in enumerate(pairwise(times), start=1):
        eps = torch.from_numpy(noise.after_step(range(len(x0)), row)).to(device)
        for column, width in enumerate(sorted(networks)):
            network: SplitNetwork = networks[width]  # type: ignore[assignment]
            _, deep = network.with_features(*_noised(schedule, x0, eps, before), *label)
            given = _noised(schedule, x0, eps, time)
            errors = [network.reusing(deep, *given, *label) - eps, network(*given, *label) - eps]
            reused, full = (float(error.double().square().mean()) for error in errors)
            table[row, column] = reused - full
    return table


def _noised(schedule: NoiseSchedule, x0: Tensor, eps: Tensor, time: float) -> tuple[Tensor, Tensor]:
    alpha, sigma = (float(f(np.array([time]))[0]) for f in (schedule.alpha, schedule.sigma))
    return alpha * x0 + sigma * eps, torch.full((len(x0),), float(time), device=x0.device)


def _of_labels(network: Callable[..., Tensor], labels: Tensor) -> Denoiser:
    """Return the network as one without classes.  Labels go by place: converted networks take them as `*label`."""
    return lambda x, t: network(x, t, labels)


def supernet_gap(
    card: SupernetCard,
    weights: Mapping[str, np.ndarray],
    times: Sequence[float],
    images: NDArray[np.generic],
    labels: Labels | None,
    device: torch.device,
    variants: Sequence[Variant] = (),
) -> NDArray[np.float64]:
    """Return the gap table of a supernet; `labels` [N] are those of the images, for a class-conditional one.

    With `variants`, the columns are of these: a size's own, and for reuse what it adds.  The loss is of conditional
    predictions, so variants that differ in guidance alone have equal columns.
    """
    supernet = supernet_from_weights(card, {k: torch.from_numpy(np.array(v)) for k, v in weights.items()}).to(device)
    # The full depth, infinite here, is the last of each width.
    sizes = {(width, math.inf): Size(width) for width in card.network.widths}
    sizes |= {(v.width, float(v.depth)): v.size for v in variants if v.depth is not None}
    subnets = {column: supernet.subnet(*size) for column, size in sizes.items()}
    denoisers: dict[tuple[float, float], Denoiser] = {**subnets}
    if labels is not None:
        known = torch.from_numpy(np.array(labels)).to(device)
        denoisers = {column: _of_labels(subnet, known) for column, subnet in subnets.items()}
    schedule = noise_schedule(card.diffusion)
    table = gap_table(denoisers, schedule, times, images, device)
    if not variants:
        return table
    widths = sorted({variant.width for variant in variants if variant.reuse})
    reusing = {width: subnets[width, math.inf] for width in widths}
    added = reuse_gap(reusing, schedule, times, images, device, () if labels is None else (known,))
    place = {sizes[column]: i for i, column in enumerate(sorted(sizes))}
    columns = [table[:, place[v.size]] + (added[:, widths.index(v.width)] if v.reuse else 0.0) for v in variants]
    return np.column_stack(columns)
