"""Set up the network of one width as a plain one, to be trained alone for the network FLOPs of a supernet's training.

It is the baseline of a supernet: what its widths would be if they shared no weights.
"""

from __future__ import annotations

from typing import TypeVar

from stepfront.errors import InputError
from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.training.sandwich import uses_per_step

MOST_DIFFERENCE = 0.02
"""Share by which the MACs may differ from the width's: a narrow U-Net of its own has a shorter sinusoid of times."""

Given = TypeVar("Given", bound=TrainerSettings)


def step_macs(settings: TrainerSettings, image_channels: int, resolution: int) -> float:
    """Return the expected MACs of the forward passes of one training step, per image of the batch."""
    network = settings.network
    uses = uses_per_step(settings.training, network.sizes)
    costs = {width: count_width(network, image_channels, resolution, width) for width in network.widths}
    return sum(share * costs[width].network_macs(depth) for (width, depth), share in uses.items() if share)


def plain_settings(settings: Given, width: float, image_channels: int, resolution: int) -> Given:
    """Return settings that train the network of `width` alone, with the network FLOPs of the settings' own training.

    It has the layers and channels of that width as its only width, 1.  It has full depth.  What only a
    supernet's training has (factors per width, distillation from its widest network, the rule of widths) is left out.
    Raises InputError for a width that the settings do not have, for a family without channels of its own (`base`), and
    for a start from a supernet.
    """
    network, training = settings.network, settings.training
    if width not in network.widths:
        possible = ", ".join(f"{one:g}" for one in network.widths)
        raise InputError(f"width {width:g} is not one of network.widths; possible: {possible}")
    if training.start is not None:
        raise InputError("a plain network starts from random weights: leave out training.start")
    alone = network.model_copy(update={"base": round(network.base * width), "widths": (1.0,), "depths": ()})
    supernets = count_width(network, image_channels, resolution, width)
    macs = count_width(alone, image_channels, resolution, 1.0).macs
    if abs(macs / supernets.macs - 1) > MOST_DIFFERENCE:
        raise InputError(f"the family {network.family} has no plain network of width {width:g}: its cost differs")
    steps = max(1, round(training.steps * step_macs(settings, image_channels, resolution) / macs))
    update: dict[str, object] = {"steps": steps, "rule": "sandwich", "width_weights": None}
    if training.teacher is None:
        update |= {"distill": 0.0, "distill_spectrum": 0.0}
    return settings.model_copy(update={"network": alone, "training": training.model_copy(update=update)})
