"""Compute the gradients of one sandwich step: the widest, the narrowest and one random width.

The sandwich rule is that of Yu & Huang 2019, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from stepfront.trainers.config import TrainingSettings
from stepfront.trainers.training.batches import BatchSource, CleanBatch
from stepfront.trainers.training.width_gradients import WidthGradients


class WidthBatches(NamedTuple):
    """What one width is trained on in a step: micro-batches."""

    width: float
    batches: list[CleanBatch]


def images_per_step(training: TrainingSettings, widths: Sequence[float]) -> int:
    """Return how many images one step trains on, in all processes: each width of the sandwich counts its own."""
    return training.batch * min(3, len(widths))


def choose_widths(widths: Sequence[float], generator: torch.Generator) -> list[float]:
    """Return the widths of one step: the widest, the narrowest, and one at random in between."""
    between = widths[1:-1]
    chosen = [between[int(torch.randint(len(between), (), generator=generator))]] if between else []
    return [widths[-1], *([widths[0]] if len(widths) > 1 else []), *chosen]


def draw_step(
    source: BatchSource, training: TrainingSettings, widths: Sequence[float], generator: torch.Generator
) -> list[WidthBatches]:
    """Draw all that one step trains on, the widest width's first.

    With distillation, all widths see the same batch.
    """
    batches, drawn = source.draw(generator), []
    for i, width in enumerate(choose_widths(widths, generator)):
        if i and not training.distill:
            batches = source.draw(generator)  # new images, times and noise per width: less variance at no cost
        drawn.append(WidthBatches(width, batches))
    return drawn


def add_gradients(
    gradients: WidthGradients, source: BatchSource, drawn: Sequence[WidthBatches], training: TrainingSettings
) -> None:
    """Add the gradients of one step to those of the supernet's parameters.

    With distillation, narrower widths learn from the widest one's prediction.
    """
    targets: list[Tensor] = []
    for width, batches in drawn:
        predictions = []
        for part, clean in enumerate(batches):
            batch = source.noisy(clean)
            goal = torch.lerp(batch.eps, targets[part], training.distill) if targets else batch.eps
            predictions.append(gradients.add(width, batch, goal, len(batch.x) / training.batch))
        if training.distill and not targets:
            targets = predictions


def draw_ahead(
    draw: Callable[[int], list[WidthBatches]], steps: range, device: torch.device
) -> Iterator[list[WidthBatches]]:
    """Yield what is drawn for each step; on a GPU, the next step is drawn while the GPU computes this one."""
    if device.type != "cuda":
        yield from map(draw, steps)
        return
    with ThreadPoolExecutor(1) as executor:
        following = executor.submit(draw, steps[0]) if steps else None
        for step in steps:
            assert following is not None
            drawn = following.result()
            if step + 1 in steps:
                following = executor.submit(draw, step + 1)
            yield drawn
