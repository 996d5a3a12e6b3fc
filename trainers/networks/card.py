"""Describe a saved supernet: everything needed to build its network, and what it was made from."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import Field

from stepfront.errors import InputError
from stepfront.files import read_json
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.latent_space import LatentSpace
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.validation import Settings, validate

FORMAT = 1
"""Version of the card and the weights file."""

CARD_FILE = "supernet.json"


class TimeGroups(Settings):
    """Groups of training times, each with weights of its own: `first` are their first times, ascending from 0."""

    first: tuple[int, ...] = Field(min_length=2)

    def times(self, steps: int) -> list[tuple[int, int]]:
        """Return the first and last time of each group, of `steps` training times."""
        return [(a, b - 1) for a, b in pairwise([*self.first, steps])]

    @property
    def cuts(self) -> tuple[float, ...]:
        """Return the times that part the groups, one less than groups: halfway between two training times."""
        return tuple(first - 0.5 for first in self.first[1:])


class SupernetCard(Settings):
    """The content of supernet.json, which stands beside the weights."""

    format: int
    network: NetworkSettings
    diffusion: DiffusionSettings
    image_channels: int
    resolution: int
    data_name: str
    data_fingerprint: str
    digest: str
    label_counts: tuple[int, ...] = Field((), description="training images per class; empty: unknown, or no classes")
    class_names: tuple[str, ...] = Field((), description="names of the classes in the images; empty: unknown, or none")
    latents: LatentSpace | None = Field(None, description="latent space of the network; null: it works on pixels")
    groups: TimeGroups | None = Field(None, description="groups of times with weights of their own; null: one for all")
    made_with: dict[str, Any] = Field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the content of the file, without `latents` and `groups` that are none: as in cards that are older."""
        return self.model_dump(mode="json", exclude={n for n in ("latents", "groups") if getattr(self, n) is None})

    def check_ungrouped(self, what: str) -> None:
        """Raise InputError where groups of times have weights of their own; `what` begins the message."""
        if self.groups is not None:
            raise InputError(
                f"{what} has {len(self.groups.first)} groups of times with weights of their own; possible: the "
                "supernet that they were made from, or the groups merged (adapt.merge=true)"
            )


def read_card(directory: Path) -> SupernetCard:
    """Return the card of a saved supernet.

    Raises InputError when the card is missing, damaged or of another format version.
    """
    path = Path(directory) / CARD_FILE
    content = read_json(path, "supernet card")
    if content.get("format") != FORMAT:
        raise InputError(f"{path} has format version {content.get('format')!r}; this stepfront reads {FORMAT}")
    try:
        return validate(SupernetCard, content)
    except InputError as error:
        raise InputError(f"{path} is not a supernet card: {error}") from None


def check_fingerprint(card: SupernetCard, data_fingerprint: str | None, directory: Path) -> None:
    """Check that the supernet was trained on the data with this fingerprint.

    An imported supernet has no fingerprint, since its training images are unknown: it fits any data.
    Raises InputError when the fingerprints differ.
    """
    if data_fingerprint is not None and card.data_fingerprint and card.data_fingerprint != data_fingerprint:
        raise InputError(
            f"the supernet in {directory} was made from other data ({card.data_name}, fingerprint "
            f"{card.data_fingerprint[:12]}) than the given data (fingerprint {data_fingerprint[:12]}); "
            "train a supernet on the given data, or set data to the data of this supernet"
        )


def check_autoencoder(card: SupernetCard, folder: str | None, digest: str | None, directory: Path) -> None:
    """Check that a supernet works on what the settings' data give: pixels (None), or latents of one autoencoder.

    An imported supernet does not know its autoencoder: any with latents of its shape will do.  Raises InputError for
    another autoencoder, and for latents in place of pixels or the other way round.
    """
    made = card.latents
    if made is not None and digest is None:
        raise InputError(
            f"the supernet in {directory} works on latents of the autoencoder {made.autoencoder} (digest "
            f"{made.digest[:12]}); set data.autoencoder to its folder"
        )
    if made is None and digest is not None and card.data_fingerprint:
        raise InputError(
            f"the supernet in {directory} works on pixels; leave out data.autoencoder, or train another supernet"
        )
    if made is not None and digest is not None and made.digest != digest:
        raise InputError(
            f"the supernet in {directory} works on latents of another autoencoder ({made.autoencoder}, digest "
            f"{made.digest[:12]}) than {folder} (digest {digest[:12]}); set data.autoencoder to the former, or train "
            "another supernet"
        )


def check_latent_shape(card: SupernetCard, latents: LatentSpace, directory: Path) -> None:
    """Raise InputError when latents have other channels, or another side, than the supernet reads."""
    theirs, ours = (card.image_channels, card.resolution), (latents.channels, latents.resolution)
    if theirs != ours:
        read, given = (f"{channels}x{side}x{side}" for channels, side in (theirs, ours))
        raise InputError(
            f"the supernet in {directory} reads {read}, and the latents of {latents.autoencoder} are {given}; use the "
            "autoencoder and the data.size that it was made for"
        )
