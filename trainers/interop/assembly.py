"""Build and save a supernet from translated weights, the last step of every import."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.network_settings import PROMPTED, NetworkSettings
from stepfront.trainers.networks.card import CARD_FILE, SupernetCard
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import save_supernet

ORIGIN_FILE = "origin.json"
"""What an export needs to restore a network that was not trained since its import."""

WIDTHS = (0.25, 0.5, 0.75, 1.0)
"""Widths of an imported network, where none are given."""


def assemble(
    settings: NetworkSettings,
    image_channels: int,
    resolution: int,
    weights: Mapping[str, Tensor],
    source: Path,
    diffusion: DiffusionSettings | None = None,
) -> Supernet:
    """Build a float32 supernet from `weights` under stepfront's names.

    Raises InputError when a tensor is missing, has another shape than the settings require, or is not finite.
    """
    with torch.device("meta"):
        supernet = Supernet(settings, image_channels, resolution, diffusion)
    expected = {name: tuple(value.shape) for name, value in supernet.widest.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    for name in sorted(expected.keys() | given.keys()):
        if expected.get(name) != given.get(name):
            raise InputError(
                f"{source}: the tensor for {name} is {given.get(name, 'missing')}; {_network_in_words(settings)} has "
                f"{expected.get(name, 'no such tensor')}"
            )
        if not weights[name].isfinite().all():
            raise InputError(f"{source}: the tensor for {name} holds values that are not finite")
    supernet.widest.load_state_dict({name: value.float().contiguous() for name, value in weights.items()}, assign=True)
    return supernet.requires_grad_(False).eval()


def _network_in_words(settings: NetworkSettings) -> str:
    if settings.family == "dit":
        return f"a transformer of {settings.dit.hidden} channels and {settings.dit.depth} blocks"
    if settings.family == PROMPTED:
        return "the UNet2DConditionModel of its config"
    return f"a U-Net of base {settings.base}, multipliers {list(settings.multipliers)} and {settings.blocks} blocks"


def save_imported(
    supernet: Supernet,
    directory: Path,
    diffusion: DiffusionSettings,
    made_with: Mapping[str, Any],
    class_names: tuple[str, ...] = (),
) -> SupernetCard:
    """Write the supernet's files into `directory`.

    The card has no data fingerprint, since the model's files do not say which images it was trained on.
    Raises InputError when there is a supernet already.
    """
    if (Path(directory) / CARD_FILE).exists():
        raise InputError(f"there is a supernet in {directory} already; choose another --out")
    return save_supernet(supernet, directory, diffusion, "unknown", "", made_with, class_names=class_names)
