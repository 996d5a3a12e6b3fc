"""Compute and store the gap table: how much worse each width predicts noise than full width, per step."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stepfront.search.step_tables.stored_arrays import read_arrays, write_arrays
from stepfront.trainers.data import Labels
from stepfront.trainers.networks.card import SupernetCard
from stepfront.trainers.step_losses.loss_gap import supernet_gap
from stepfront.trainers.variant import Variant, runs_text

GAP_FILE = "gap.npz"


@dataclass(frozen=True)
class GapInputs:
    """What a gap table is computed from: a supernet, the sampler's times, held-out images (or latents), labels."""

    card: SupernetCard
    weights: dict[str, np.ndarray]
    times: tuple[float, ...]
    images: NDArray[np.generic]
    labels: Labels | None
    fingerprint: str
    """Of the data set that the images come from."""
    wanted: int
    """Number of held-out images that the settings ask for; the data set may have fewer."""
    variants: tuple[Variant, ...] = ()
    """What the columns are of; all widths where none are given."""

    @property
    def key(self) -> str:
        """Return a digest that changes with the supernet, the times or the images."""
        made_from: tuple[object, ...] = (self.card.digest, self.fingerprint, self.times, self.wanted)
        if self.variants:
            made_from += (runs_text(self.variants),)
        return hashlib.sha256(repr(made_from).encode()).hexdigest()

    @property
    def columns(self) -> tuple[Variant, ...]:
        """Return what the columns are of."""
        return self.variants or tuple(map(Variant, self.card.network.widths))

    def measure(self, device: torch.device) -> np.ndarray:
        """Compute the table [steps, variants] on a device."""
        return supernet_gap(self.card, self.weights, self.times, self.images, self.labels, device, self.variants)


def read_gap_table(directory: Path, key: str) -> np.ndarray | None:
    """Read the gap table of a search directory; None where there is none, or one with another key."""
    stored = read_arrays(directory / GAP_FILE, key)
    return None if stored is None else stored.get("gap")


def write_gap_table(directory: Path, inputs: GapInputs, gap: np.ndarray) -> None:
    """Write the gap table of a search directory, with the times of its rows and the variants of its columns."""
    columns = inputs.columns
    names = {
        "times": np.array(inputs.times, dtype=np.float64),
        "widths": np.array([variant.width for variant in columns]),
        "marks": np.array([variant.mark for variant in columns], dtype=np.str_),
    }
    write_arrays(directory / GAP_FILE, inputs.key, {"gap": gap, **names})
