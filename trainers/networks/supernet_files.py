"""Save and load a supernet: supernet.safetensors with the weights, supernet.json with the card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from stepfront.errors import InputError
from stepfront.files import write_atomically, write_json
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.latent_space import LatentSpace
from stepfront.trainers.networks.card import CARD_FILE, FORMAT, SupernetCard, check_fingerprint, read_card
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.weights import read_weights, weights_digest

WEIGHTS_FILE = "supernet.safetensors"


def save_supernet(
    supernet: Supernet,
    directory: Path,
    diffusion: DiffusionSettings,
    data_name: str,
    data_fingerprint: str,
    made_with: Mapping[str, Any] | None = None,
    label_counts: tuple[int, ...] = (),
    class_names: tuple[str, ...] = (),
    latents: LatentSpace | None = None,
) -> SupernetCard:
    """Write the weights, then the card beside them; the card's digest binds the two files."""
    weights = {name: value.detach().cpu().contiguous() for name, value in supernet.widest.state_dict().items()}
    card = SupernetCard(
        format=FORMAT,
        network=supernet.settings,
        diffusion=diffusion,
        image_channels=supernet.image_channels,
        resolution=supernet.resolution,
        data_name=data_name,
        data_fingerprint=data_fingerprint,
        digest=weights_digest(weights),
        label_counts=label_counts,
        class_names=class_names,
        latents=latents,
        groups=supernet.groups,
        made_with=dict(made_with or {}),
    )
    write_atomically(Path(directory) / WEIGHTS_FILE, lambda path: save_file(weights, path))
    write_json(Path(directory) / CARD_FILE, card.to_json())
    return card


def load_supernet(directory: Path, data_fingerprint: str | None = None) -> tuple[Supernet, SupernetCard]:
    """Load the supernet saved in `directory` onto the CPU, with its card.

    Raises InputError when a file is missing or damaged, when shapes or digest do not fit the card, or when the supernet
    was made from other data than `data_fingerprint`.
    """
    directory = Path(directory)
    card = read_card(directory)
    check_fingerprint(card, data_fingerprint, directory)
    weights = read_weights(directory / WEIGHTS_FILE)
    return supernet_from_weights(card, weights, directory / WEIGHTS_FILE, verify=True), card


def supernet_from_weights(
    card: SupernetCard, weights: Mapping[str, Tensor], source: Path | str = "the given weights", verify: bool = False
) -> Supernet:
    """Build a supernet around `weights`, without a copy.

    Raises InputError when names, shapes or (with `verify`) the digest differ from the card's.
    """
    with torch.device("meta"):
        supernet = Supernet(card.network, card.image_channels, card.resolution, card.diffusion, card.groups)
    expected = {name: tuple(value.shape) for name, value in supernet.widest.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    for name in sorted(expected.keys() | given.keys()):
        if expected.get(name) != given.get(name):
            raise InputError(
                f"{source} does not fit its card: {name} is {given.get(name, 'missing')}, "
                f"the card's network has {expected.get(name, 'no such tensor')}"
            )
    if verify and weights_digest(weights) != card.digest:
        raise InputError(f"{source} does not belong to its card: the weights' digest differs")
    supernet.widest.load_state_dict(dict(weights), assign=True)
    return supernet.eval()
