"""Choose the weights of another supernet that a training can start from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from stepfront.errors import InputError
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.latent_space import LatentSpace
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.card import SupernetCard, check_autoencoder
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import load_supernet
from stepfront.trainers.validation import settings_json

MAY_DIFFER = ("widths", "dropout", "classes", "inner_steps", "depths")
"""Settings of the network in which the two supernets may differ; none of them changes what the weights are for."""


def start_from(
    supernet: Supernet, directory: Path, diffusion: DiffusionSettings, latents: LatentSpace | None = None
) -> dict[str, object]:
    """Copy into `supernet`, which is trained on `latents` (None: on pixels), the weights in `directory` that fit it.

    Returns what the model card records about it: the digest and data of the source, and how many numbers were copied.
    Raises InputError when the source is missing, damaged or of another network, noise schedule or autoencoder.
    """
    own: dict[str, nn.Parameter] = dict(supernet.widest.named_parameters())
    weights, card = starting_weights(directory, supernet.settings, diffusion, own, latents)
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)
    copied, total = (sum(value.numel() for value in some.values()) for some in (weights, own))
    return {"digest": card.digest, "data": card.data_name, "weights": copied, "of": total}


def starting_weights(
    directory: Path,
    network: NetworkSettings,
    diffusion: DiffusionSettings,
    own: Mapping[str, Tensor],
    latents: LatentSpace | None = None,
) -> tuple[dict[str, Tensor], SupernetCard]:
    """Return the weights saved in `directory` that fit `own` in name and shape, and their card.

    Images of another size, or another number of colours or classes, leave a few layers to be initialised at random.
    Raises InputError when a setting of the network or the noise other than `MAY_DIFFER` differs, and when the source
    works on other latents, or on pixels in their place.
    """
    supernet, card = load_supernet(directory)
    card.check_ungrouped(f"training.start: {directory}")
    folder, digest = (None, None) if latents is None else (latents.autoencoder, latents.digest)
    check_autoencoder(card, folder, digest, directory)
    theirs = settings_json(card.network) | settings_json(card.diffusion)
    ours = settings_json(network) | settings_json(diffusion)
    for key in theirs:
        if key not in MAY_DIFFER and theirs[key] != ours[key]:
            raise InputError(
                f"training.start: the supernet in {directory} has {key} {theirs[key]!r}, these settings have "
                f"{ours[key]!r}; use the same value, or start from another supernet"
            )
    weights = dict(supernet.widest.state_dict())
    return {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape}, card
