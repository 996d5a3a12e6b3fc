"""Hold what a training changes: weights, their average, Adam's moments and the step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import nn

from stepfront.errors import InputError
from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.data import ImageData
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.unet import FAMILIES_OF_UNETS, attention_refusal, missing_attention
from stepfront.trainers.training.distributed import Group
from stepfront.trainers.training_settings import TrainingSettings


@dataclass
class TrainingState:
    """The state of one training on one device, after `step` steps.

    `teacher` is the digest of the weights that teach it; None without a teacher from a folder.  `rows` are those of
    training.parquet, one per checkpoint: they travel with the weights, and no reader of reports has to be there.
    """

    supernet: Supernet
    averaged: Supernet
    optimizer: torch.optim.Optimizer
    step: int = 0
    started_from: dict[str, object] | None = None
    teacher: str | None = None
    rows: list[dict[str, float]] = field(default_factory=list)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The trained parameters, by name."""
        return dict(self.supernet.widest.named_parameters())

    def update(self, training: TrainingSettings, group: Group) -> None:
        """Apply the gradients that all processes have computed, and update the average."""
        parameters = list(self.parameters.values())
        group.sum_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, training.clip)
        for options in self.optimizer.param_groups:
            options["lr"] = training.lr * rate_factor(training, self.step)
        self.optimizer.step()
        self.step += 1
        self._average(training.ema)

    @torch.no_grad()
    def follow_layout(self) -> None:
        """Give Adam's moments the memory layout of their weights, which the fused optimizer needs."""
        for weights in self.parameters.values():
            moments = self.optimizer.state.get(weights, {})
            for name in {"exp_avg", "exp_avg_sq"} & moments.keys():
                moments[name] = torch.empty_like(weights).copy_(moments[name])

    @torch.no_grad()
    def _average(self, ema: float) -> None:
        # The average follows quickly at first, or the random initial weights would stay in it for thousands of steps.
        keep = min(ema, self.step / (self.step + 10))
        torch._foreach_lerp_(list(self.averaged.parameters()), list(self.supernet.parameters()), 1 - keep)


def initial_supernet(settings: TrainerSettings, data: ImageData) -> Supernet:
    """Build the supernet with the random weights of `training.seed`, on the CPU.

    Raises InputError for attention at a resolution that the images never have.
    """
    channels, resolution, _ = data.network_shape
    of_unets = settings.network.family in FAMILIES_OF_UNETS
    if of_unets and (missing := missing_attention(settings.network, resolution)):
        raise InputError(attention_refusal(missing, settings.network, resolution))
    with torch.random.fork_rng():
        torch.manual_seed(settings.training.seed)
        return Supernet(settings.network, channels, resolution, settings.diffusion)


def state_of(supernet: Supernet, training: TrainingSettings, device: torch.device) -> TrainingState:
    """Return the state of a training that begins with the weights of `supernet`, on `device`."""
    averaged = Supernet(supernet.settings, supernet.image_channels, supernet.resolution, supernet.diffusion)
    averaged.load_state_dict(supernet.state_dict())
    supernet.to(device).train()
    averaged.to(device).requires_grad_(False).eval()
    # The fused kernel takes the place of several hundred small ones.
    optimizer = torch.optim.Adam(supernet.widest.parameters(), lr=training.lr, fused=device.type in ("cuda", "cpu"))
    return TrainingState(supernet, averaged, optimizer)


def rate_factor(training: TrainingSettings, step: int) -> float:
    """Return the factor of the learning rate at a step: linear warm-up, then cosine decay to zero."""
    warm = min(1.0, (step + 1) / max(1, training.warmup))
    remaining = max(1, training.steps - training.warmup)
    done = min(1.0, max(0, step - training.warmup) / remaining)
    return warm * (0.5 + 0.5 * math.cos(math.pi * done) if training.decay else 1.0)
