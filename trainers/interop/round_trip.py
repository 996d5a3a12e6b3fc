"""Compare an imported network with diffusers' own, where diffusers is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stepfront.errors import InputError, first_line
from stepfront.files import read_json
from stepfront.trainers.networks.supernet import Supernet

TOLERANCE = 1e-3
"""Largest difference, as a share of the largest output, that float32 in another order of sums explains by far."""


@dataclass(frozen=True)
class Reference:
    """What diffusers' network predicts [2, C, H, W] for an input, its times [2] and labels [2]."""

    x: Tensor
    times: Tensor
    label: Tensor | None
    predicted: Tensor


@torch.no_grad()
def run_in_diffusers(
    config: Path,
    theirs: Mapping[str, Tensor],
    resolution: int,
    steps: int,
    say: Callable[[str], None],
    model: str = "UNet2DModel",
    classes: int | None = None,
) -> Reference | None:
    """Run diffusers' network of a config and weights once; None where diffusers can't, which `say` is told.

    `model` is its class, and `classes` the number of labels that it takes (default: as the config of a U-Net says).
    """
    if importlib.util.find_spec("diffusers") is None:
        say("not compared with diffusers, which is not installed; pip install 'diffusers>=0.36'")
        return None
    try:
        import diffusers

        network = getattr(diffusers, model).from_config(read_json(config, "network's config")).eval()
        network.load_state_dict({name: value.float() for name, value in theirs.items()})
        shape = (2, network.config.in_channels, resolution, resolution)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        times = torch.tensor([steps // 10, steps * 3 // 4])
        classes = classes or network.config.num_class_embeds
        label = None if classes is None else torch.tensor([0, classes - 1])
        return Reference(x, times, label, network(x, times, class_labels=label).sample)
    except Exception as error:  # another version of diffusers, or one that can't be imported
        say(f"not compared with diffusers: {first_line(error)[:200]}")
        return None


@torch.no_grad()
def compare(supernet: Supernet, reference: Reference, source: Path, say: Callable[[str], None]) -> None:
    """Say how far full width differs from diffusers; raise InputError where it computes something else."""
    inputs = (reference.x, reference.times.float()) + (() if reference.label is None else (reference.label,))
    ours, theirs = supernet.widest(*inputs), reference.predicted[:, : supernet.image_channels]  # without variances
    largest = theirs.abs().max().clamp(1e-6)
    difference = float((ours - theirs).abs().max() / largest)
    if not difference <= TOLERANCE:
        raise InputError(
            f"{source}: the imported network differs from diffusers' by {difference:.2g} of the largest output; please "
            "report this with the config.json"
        )
    say(f"compared with diffusers: the largest difference is {difference:.1g} of the largest output")
