"""Divide the training times into groups of equal parts of log-SNR, of the loss or of the times themselves."""

from __future__ import annotations

import numpy as np
import torch

from stepfront.arrays import Array
from stepfront.errors import InputError
from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.data import ImageData, to_float
from stepfront.trainers.networks.card import TimeGroups
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.noise_schedule import NoiseSchedule
from stepfront.trainers.training.batches import NoiseTable, step_generator
from stepfront.trainers.training.held_out import HELD_OUT_STEP
from stepfront.trainers.training_settings import GroupSettings

MEASURED_TIMES, MEASURED_IMAGES = 50, 64
"""Times at which the loss is measured, evenly spread, and the held-out images of each."""


def divide_times(groups: GroupSettings, schedule: NoiseSchedule, losses: Array | None = None) -> TimeGroups:
    """Return the groups, the least noisy first; `losses` [T] at all training times are needed for groups by loss.

    Raises InputError for more groups than times, and where a group has no training time.
    """
    steps, count = schedule.steps, groups.count
    if count > steps:
        raise InputError(f"{count} groups of {steps} training times; give at most {steps} (adapt.groups.count)")
    if groups.by == "snr":
        half_log_snr = schedule.half_log_snr(np.arange(steps, dtype=np.float64))
        places = (half_log_snr[0] - half_log_snr) / (half_log_snr[0] - half_log_snr[-1])
    else:
        each = np.ones(steps) if groups.by == "times" or losses is None else losses
        places = (np.cumsum(each) - each / 2) / each.sum()
    group = np.minimum((places * count).astype(int), count - 1)
    first = [int(np.searchsorted(group, number)) for number in range(count)]
    empty = [number for number in range(count) if not (group == number).any()]
    if empty:
        raise InputError(
            f"group {empty[0] + 1} of {count} by {groups.by} has no training time; give fewer groups, or "
            "adapt.groups.by=times"
        )
    return TimeGroups(first=tuple(first))


@torch.inference_mode()
def losses_by_time(supernet: Supernet, settings: TrainerSettings, data: ImageData, noise: NoiseTable) -> Array:
    """Return the mean squared error of full width in the noise at every training time, [T], between measured ones."""
    device = next(supernet.parameters()).device
    rows = data.held_out_sample(MEASURED_IMAGES)
    x0 = to_float(data.clean_held_out(rows)).to(device)
    eps = torch.randn(x0.shape, generator=step_generator(settings.training.seed, HELD_OUT_STEP)).to(device)
    label = None
    if settings.network.classes is not None and data.held_out_labels is not None:
        label = torch.from_numpy(data.held_out_labels[rows]).to(device)
    times, losses = np.unique(np.linspace(0, len(noise) - 1, MEASURED_TIMES).round()), []
    for time in times:
        t = torch.full((len(rows),), int(time), device=device)
        predicted = supernet(noise.add_noise(x0, t, eps), t, 1.0, label).double()
        losses.append(float((predicted - eps).square().mean()))
    return np.interp(np.arange(len(noise)), times, losses)
