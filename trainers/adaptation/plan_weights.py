"""Fit a supernet's weights to one plan: train its widths at exactly the times at which the plan runs them.

Aligned training times are those of Fast-DDPM (Jiang et al. 2024, arXiv 2405.14802).  The target is the noise, mixed
with what full width of the supernet predicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.data import ImageData, Progress, to_float
from stepfront.trainers.network_settings import PROMPTED
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.noise_schedule import noise_schedule
from stepfront.trainers.training.batches import NoisyBatch, step_generator
from stepfront.trainers.training.distributed import Group
from stepfront.trainers.training.state import state_of
from stepfront.trainers.training.width_gradients import WidthGradients
from stepfront.trainers.training_settings import AdaptSettings

FIRST_STEP = 2**41
"""The first step whose generator draws a batch: no training has it."""

DISTILL = 0.5
"""Share of full width's prediction in the target."""

CPU = torch.device("cpu")


@dataclass(frozen=True)
class FittedWeights:
    """A supernet whose weights are fitted to a plan, and the held-out loss of the plan's calls before and after."""

    supernet: Supernet
    loss_before: float
    loss_after: float
    images: int
    """Images that networks were trained on, all widths together."""


def check_fits(supernet: Supernet) -> None:
    """Raise InputError where the weights of a supernet can't be fitted to a plan."""
    if supernet.settings.family == PROMPTED:
        raise InputError(f"a network of family {PROMPTED} is searched as it is; weights can't be fitted to its plans")
    if supernet.groups is not None:
        raise InputError("this supernet has weights per group of times; weights are fitted to plans of an ordinary one")
    if supernet.diffusion.prediction != "epsilon":
        raise InputError(
            f"weights are fitted to networks that predict the noise, and this one predicts "
            f"{supernet.diffusion.prediction} (diffusion.prediction)"
        )


def fit_weights(
    supernet: Supernet,
    settings: TrainerSettings,
    adapt: AdaptSettings,
    data: ImageData,
    calls: Mapping[float, tuple[float, ...]],
    steps: int,
    progress: Progress = lambda done, total: None,
) -> FittedWeights:
    """Return the weights after `steps` steps; `calls` are the times at which a plan runs each width.

    A step trains each width on its share of the batch, the share of the plan's calls; `training.drop_labels` is the
    share of calls without a label.  Learning rate, warm-up and clip
    are those of `adapt` and `training`.  Raises InputError as `check_fits` does.
    """
    check_fits(supernet)
    teacher = supernet.subnet(1.0)
    student = Supernet(supernet.settings, supernet.image_channels, supernet.resolution, supernet.diffusion)
    student.load_state_dict({name: value.clone() for name, value in supernet.state_dict().items()})
    training = settings.training.model_copy(update={"steps": steps, "lr": adapt.lr, "warmup": adapt.warmup})
    state = state_of(student, training, CPU)
    gradients = WidthGradients(student, "plain", torch.autocast("cpu", torch.bfloat16, enabled=False))
    source, images = _Source(settings, data, calls), 0
    before = source.loss(state.averaged)
    for step in range(steps):
        state.optimizer.zero_grad(set_to_none=False)
        for width, batch in source.draw(step_generator(training.seed, FIRST_STEP + step)):
            with torch.no_grad():
                taught = teacher(batch.x, batch.t, *(() if batch.label is None else (batch.label,)))
            share = len(batch.x) / training.batch
            gradients.add(width, batch, torch.lerp(batch.target, taught, DISTILL), share)
            images += len(batch.x)
        state.update(training, Group())
        progress(step + 1, steps)
    return FittedWeights(state.averaged, before, source.loss(state.averaged), images)


class _Source:
    """Draws noisy images at the times of a plan's calls, per width."""

    def __init__(self, settings: TrainerSettings, data: ImageData, calls: Mapping[float, tuple[float, ...]]) -> None:
        self._settings, self._data, self._calls = settings, data, calls
        self._schedule = noise_schedule(settings.diffusion)

    def draw(self, generator: torch.Generator) -> Iterator[tuple[float, NoisyBatch]]:
        """Yield each width with its share of a batch, at least one image."""
        total = sum(map(len, self._calls.values()))
        for width, times in self._calls.items():
            count = max(1, round(self._settings.training.batch * len(times) / total))
            rows = torch.randint(len(self._data.images), (count,), generator=generator)
            mirrored = torch.rand(count, generator=generator) < 0.5 if self._settings.data.flip else None
            labels = None
            if self._settings.network.classes is not None and self._data.labels is not None:
                dropped = torch.rand(count, generator=generator) < self._settings.training.drop_labels
                known = torch.from_numpy(self._data.labels[rows.numpy()])
                labels = known.masked_fill(dropped, self._settings.network.classes)
            x0 = self._data.clean(rows.numpy(), mirrored)
            chosen = torch.tensor(times)[torch.randint(len(times), (count,), generator=generator)]
            yield width, self._noisy(x0, chosen, torch.randn(x0.shape, generator=generator), labels)

    @torch.inference_mode()
    def loss(self, supernet: Supernet) -> float:
        """Return the mean squared error in the noise over the plan's calls, on held-out images and fixed noise."""
        rows = self._data.held_out_sample(self._settings.training.held_out_images)
        x0 = to_float(self._data.clean_held_out(rows))
        eps = torch.randn(x0.shape, generator=step_generator(self._settings.training.seed, FIRST_STEP - 1))
        label = None
        if self._settings.network.classes is not None and self._data.held_out_labels is not None:
            label = torch.from_numpy(self._data.held_out_labels[rows])
        losses = []
        for width, times in self._calls.items():
            for time in times:
                batch = self._noisy(x0, torch.full((len(rows),), time), eps, label)
                predicted = supernet(batch.x, batch.t, width, label).double()
                losses.append(float((predicted - eps).square().mean()))
        return float(np.mean(losses))

    def _noisy(self, x0: Tensor, t: Tensor, eps: Tensor, label: Tensor | None) -> NoisyBatch:
        times = t.double()
        alpha, sigma = self._schedule.alpha(times).float(), self._schedule.sigma(times).float()
        return NoisyBatch(alpha[:, None, None, None] * x0 + sigma[:, None, None, None] * eps, t, eps, label)
