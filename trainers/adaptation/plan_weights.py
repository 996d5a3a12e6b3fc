"""Fit a supernet's weights to one plan: train its widths at exactly the times at which the plan runs them.

Aligned training times are those of Fast-DDPM (Jiang et al. 2024, arXiv 2405.14802).  The target is what a network
of the supernet's prediction learns (`diffusion.prediction`), mixed with what full width predicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.data import ImageData, Progress, to_float
from stepfront.trainers.devices import own_generators, seed_generators
from stepfront.trainers.network_settings import PROMPTED
from stepfront.trainers.networks.prediction import conversion
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.noise_schedule import noise_schedule
from stepfront.trainers.training.batches import NoisyBatch, step_generator, step_seed
from stepfront.trainers.training.distributed import Group
from stepfront.trainers.training.state import state_of
from stepfront.trainers.training.width_gradients import WidthGradients, training_autocast
from stepfront.trainers.training_settings import AdaptSettings

FIRST_STEP = 2**41
"""The first step whose generator draws a batch: no training has it."""

DISTILL = 0.5
"""Share of full width's prediction in the target."""

CPU = torch.device("cpu")


class Call(NamedTuple):
    """A call of a network by a plan, in training times.  They differ where a sampler has learnt what to tell it."""

    time: float
    """The time of the noise in the image that it reads."""
    told: float
    """The time that it is told."""


@dataclass(frozen=True)
class FittedWeights:
    """A supernet whose weights are fitted to a plan, and the held-out loss of the plan's calls before and after.

    The supernet is on the CPU.
    """

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


def fit_weights(
    supernet: Supernet,
    settings: TrainerSettings,
    adapt: AdaptSettings,
    data: ImageData,
    calls: Mapping[float, tuple[Call, ...]],
    steps: int,
    progress: Progress = lambda done, total: None,
    device: torch.device = CPU,
) -> FittedWeights:
    """Return the weights after `steps` steps on a device; `calls` are those of a plan by width.

    A step trains each width on its share of the batch, the share of the plan's calls; `training.drop_labels` is the
    share of calls without a label.  Learning rate and warm-up are of `adapt`; clip, precision and engine of `training`.
    The global generators, which networks and dropout draw from, are left as they were.  Raises InputError as
    `check_fits` does.
    """
    check_fits(supernet)
    with own_generators(device):
        student = Supernet(supernet.settings, supernet.image_channels, supernet.resolution, supernet.diffusion)
        student.load_state_dict({name: value.clone() for name, value in supernet.state_dict().items()})
        training = settings.training.model_copy(update={"steps": steps, "lr": adapt.lr, "warmup": adapt.warmup})
        state, autocast = state_of(student, training, device), training_autocast(training, device)
        # Graphs need a GPU, and whoever fits on another machine than the training's has no say in its settings.
        engine = training.engine if device.type == "cuda" or "cuda" not in training.engine else "channels_last"
        gradients = WidthGradients(student, engine, autocast)
        source, images = _Source(settings, supernet, data, calls, device), 0
        before = source.loss(state.averaged)
        for step in range(steps):
            drawn = list(source.draw(step_generator(training.seed, FIRST_STEP + step)))
            _record(gradients, drawn, training.batch)
            state.optimizer.zero_grad(set_to_none=False)
            seed_generators(device, step_seed(training.seed, FIRST_STEP + step) + 1)  # dropout draws from them
            for width, called in drawn:
                with autocast:
                    goal = source.goal(called)
                gradients.add(width, called.batch, goal, len(called.x) / training.batch)
                images += len(called.x)
            state.update(training, Group())
            progress(step + 1, steps)
        return FittedWeights(state.averaged.cpu(), before, source.loss(state.averaged.to(device)), images)


def _record(gradients: WidthGradients, drawn: list[tuple[float, _Called]], images: int) -> None:
    """Record the passes of a step of so many images, where the engine records; the gradients are then arbitrary."""
    for width, called in drawn:
        if not gradients.recorded(width, called.x, called.batch.label):
            gradients.record(width, called.batch, len(called.x) / images)


class _Called(NamedTuple):
    """Noisy images as a plan's calls read them, on the device of the training."""

    x: Tensor
    """Images [B, C, H, W] of the diffusion."""
    t: Tensor
    """Their times [B]."""
    batch: NoisyBatch
    """What the network reads of them and is told, and its target."""
    of_x: Tensor
    """The noise is of_x x + of_output output; both [B, 1, 1, 1]."""
    of_output: Tensor


class _Source:
    """Draws noisy images at the times of a plan's calls, per width."""

    def __init__(
        self,
        settings: TrainerSettings,
        supernet: Supernet,
        data: ImageData,
        calls: Mapping[float, tuple[Call, ...]],
        device: torch.device,
    ) -> None:
        self._settings, self._data, self._calls, self._device = settings, data, calls, device
        self._diffusion, self._schedule = supernet.diffusion, noise_schedule(supernet.diffusion)
        self._teacher = supernet.subnet(1.0).to(device)

    def draw(self, generator: torch.Generator) -> Iterator[tuple[float, _Called]]:
        """Yield each width with its share of a batch, at least one image."""
        total = sum(map(len, self._calls.values()))
        for width, calls in self._calls.items():
            count = max(1, round(self._settings.training.batch * len(calls) / total))
            rows = torch.randint(len(self._data.images), (count,), generator=generator)
            mirrored = torch.rand(count, generator=generator) < 0.5 if self._settings.data.flip else None
            labels = None
            if self._settings.network.classes is not None and self._data.labels is not None:
                dropped = torch.rand(count, generator=generator) < self._settings.training.drop_labels
                known = torch.from_numpy(self._data.labels[rows.numpy()])
                labels = known.masked_fill(dropped, self._settings.network.classes)
            x0 = self._data.clean(rows.numpy(), mirrored)
            chosen = torch.tensor(calls, dtype=torch.float64)[torch.randint(len(calls), (count,), generator=generator)]
            yield width, self._called(x0, chosen, torch.randn(x0.shape, generator=generator), labels)

    @torch.no_grad()
    def goal(self, called: _Called) -> Tensor:
        """Return the target of a call, mixed with what full width predicts there, [B, C, H, W] float32.

        Full width is told the time of the noise, as in its own training, whatever the plan tells its networks.
        """
        label = () if called.batch.label is None else (called.batch.label,)
        noise = self._teacher(called.x, called.t, *label).float()
        return torch.lerp(called.batch.target, (noise - called.of_x * called.x) / called.of_output, DISTILL)

    @torch.inference_mode()
    def loss(self, supernet: Supernet) -> float:
        """Return the mean squared error of the networks' outputs over the plan's calls, in float32.

        It is of held-out images and fixed noise.
        """
        rows = self._data.held_out_sample(self._settings.training.held_out_images)
        x0 = to_float(self._data.clean_held_out(rows))
        eps = torch.randn(x0.shape, generator=step_generator(self._settings.training.seed, FIRST_STEP - 1))
        label = None
        if self._settings.network.classes is not None and self._data.held_out_labels is not None:
            label = torch.from_numpy(self._data.held_out_labels[rows])
        losses = []
        for width, calls in self._calls.items():
            network = supernet.backbone(width)
            for call in calls:
                at = torch.tensor([call] * len(rows), dtype=torch.float64)
                batch = self._called(x0, at, eps, label).batch
                output = network(batch.x, batch.t, *(() if batch.label is None else (batch.label,)))
                losses.append(float((output.double() - batch.target).square().mean()))
        return float(np.mean(losses))

    def _called(self, x0: Tensor, calls: Tensor, eps: Tensor, label: Tensor | None) -> _Called:
        """Return images [B, C, H, W] with their noise as the calls [B, 2] read them."""
        t, told = calls[:, :1, None, None], calls[:, 1:, None, None]
        alpha, sigma = self._schedule.alpha(t), self._schedule.sigma(t)
        at = conversion(self._diffusion, self._schedule.half_log_snr(told), told)
        # The output of which the noise is made: eps = of_x x + of_output output, with x = alpha x_0 + sigma eps.
        of_x0, of_noise = -at.of_x * alpha / at.of_output, (1 - at.of_x * sigma) / at.of_output
        x0, eps = x0.to(self._device), eps.to(self._device)
        alpha, sigma, of_x0, of_noise, scale, told, of_x, of_output = (
            each.float().to(self._device) for each in (alpha, sigma, of_x0, of_noise, *at)
        )
        x = alpha * x0 + sigma * eps
        label = None if label is None else label.to(self._device)
        batch = NoisyBatch(scale * x, told.flatten(), of_x0 * x0 + of_noise * eps, label)
        return _Called(x, t.flatten().float().to(self._device), batch, of_x, of_output)
