"""Compute the gradients of one sandwich step: the widest, the narrowest and one random width.

The sandwich rule is that of Yu & Huang 2019, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from stepfront.trainers.config import TrainingSettings
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.training.batches import BatchSource, NoisyBatch


def images_per_step(training: TrainingSettings, widths: Sequence[float]) -> int:
    """Return how many images one step trains on, in all processes: each width of the sandwich counts its own."""
    return training.batch * min(3, len(widths))


def choose_widths(widths: Sequence[float], generator: torch.Generator) -> list[float]:
    """Return the widths of one step: the widest, the narrowest, and one at random in between."""
    between = widths[1:-1]
    chosen = [between[int(torch.randint(len(between), (), generator=generator))]] if between else []
    return [widths[-1], *([widths[0]] if len(widths) > 1 else []), *chosen]


def add_gradients(
    supernet: Supernet,
    source: BatchSource,
    training: TrainingSettings,
    generator: torch.Generator,
    autocast: torch.autocast,
) -> None:
    """Add the gradients of one step to those of the supernet's parameters.

    With distillation, all widths see the same batch, and narrower widths learn from the widest one's prediction.
    """
    batches = source.draw(generator)
    targets: list[Tensor] | None = None
    for i, width in enumerate(choose_widths(supernet.widths, generator)):
        if i and not training.distill:
            batches = source.draw(generator)  # new images, times and noise per width: less variance at no cost
        predictions = [
            _backward(supernet, batch, width, training, targets[part] if targets else None, autocast)
            for part, batch in enumerate(batches)
        ]
        if training.distill and targets is None:
            targets = predictions


def _backward(
    supernet: Supernet,
    batch: NoisyBatch,
    width: float,
    training: TrainingSettings,
    target: Tensor | None,
    autocast: torch.autocast,
) -> Tensor:
    """Add the gradient of one micro-batch, weighted by its share of the batch, and return the prediction."""
    with autocast:
        predicted = supernet(batch.x, batch.t, width, batch.label)
    goal = batch.eps if target is None else torch.lerp(batch.eps, target, training.distill)
    (F.mse_loss(predicted.float(), goal) * (len(batch.x) / training.batch)).backward()
    return predicted.detach().float()
