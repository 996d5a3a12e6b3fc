"""Draw the sizes (widths and depths) and batches of a training step, and compute its gradients.

The sandwich rule, the widest, the narrowest and one random width, is that of Yu & Huang 2019, section 3.  A single
random width per step, narrow ones more often, is the rule of OFA-Diffusion (arXiv 2604.12668).  Where a supernet has
depths, both rules draw pairs of a width and a depth; the narrowest is then the shallowest, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from stepfront.trainers.training.batches import BatchSource, CleanBatch
from stepfront.trainers.training.teacher import Teacher
from stepfront.trainers.training.width_gradients import WidthGradients
from stepfront.trainers.training_settings import TrainingSettings
from stepfront.trainers.variant import Size

Choice = TypeVar("Choice")
"""A width, or a `Size`; sequences of them begin with the narrowest and end with the widest."""


class WidthBatches(NamedTuple):
    """What one width, at one depth, is trained on in a step: micro-batches."""

    size: Size
    batches: list[CleanBatch]


def images_per_step(training: TrainingSettings, widths: Sequence[Choice]) -> int:
    """Return how many images one step trains on, in all processes: each width of a step counts its own."""
    return training.batch * (1 if training.rule == "single" else min(3, len(widths)))


def choose_widths(training: TrainingSettings, widths: Sequence[Choice], generator: torch.Generator) -> list[Choice]:
    """Return the widths of one step: by the sandwich rule the widest first, the narrowest, and one in between."""
    if training.rule == "single":
        often = _how_often(training, len(widths))
        return [widths[int(torch.multinomial(often, 1, generator=generator))]]
    between = widths[1:-1]
    chosen = [between[int(torch.randint(len(between), (), generator=generator))]] if between else []
    return [widths[-1], *([widths[0]] if len(widths) > 1 else []), *chosen]


def uses_per_step(training: TrainingSettings, widths: Sequence[Choice]) -> dict[Choice, float]:
    """Return how often one step trains each width, on average: what `choose_widths` draws."""
    if training.rule == "single":
        often = _how_often(training, len(widths))
        return dict(zip(widths, (often / often.sum()).tolist(), strict=True))
    between = len(widths) - 2
    return {width: 1.0 if width in (widths[0], widths[-1]) else 1 / between for width in widths}


def _how_often(training: TrainingSettings, widths: int) -> Tensor:
    return torch.linspace(training.narrowest_share, 1, widths)


def draw_step(
    source: BatchSource, training: TrainingSettings, sizes: Sequence[Size], generator: torch.Generator
) -> list[WidthBatches]:
    """Draw all that one step trains on, the complete network's first.

    With distillation, all sizes see the same batch.
    """
    batches, drawn = source.draw(generator), []
    for i, size in enumerate(choose_widths(training, sizes, generator)):
        if i and not training.distills:
            batches = source.draw(generator)  # new images, times and noise per width: less variance at no cost
        drawn.append(WidthBatches(size, batches))
    return drawn


def share_of(training: TrainingSettings, widths: Sequence[float], width: float, images: int) -> float:
    """Return the factor of the mean loss of so many images of a width in the loss of a step."""
    weights = training.width_weights
    return images / training.batch * (1.0 if weights is None else weights[list(widths).index(width)])


def add_gradients(
    gradients: WidthGradients,
    source: BatchSource,
    drawn: Sequence[WidthBatches],
    training: TrainingSettings,
    widths: Sequence[float],
    teacher: Teacher | None = None,
) -> None:
    """Add the gradients of one step to those of the supernet's parameters.

    With distillation all widths learn from the teacher's predictions too, or narrower ones from the widest one's.
    """
    taught: list[Tensor] = []
    for (width, depth), batches in drawn:
        predictions = []
        for part, clean in enumerate(batches):
            batch = source.noisy(clean)
            theirs = teacher(batch) if teacher is not None else taught[part] if taught else None
            goal = batch.target if theirs is None else torch.lerp(batch.target, theirs, training.distill)
            share = share_of(training, widths, width, len(batch.x))
            predictions.append(gradients.add(width, batch, goal, share, theirs, depth))
        if training.distills and not taught:
            taught = predictions


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
