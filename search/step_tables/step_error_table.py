"""Compute and store the errors of single steps at each width, which the initial plans `dp` are found by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from stepfront.search.step_tables.stored_arrays import read_arrays, write_arrays
from stepfront.trainers.config import SamplerSettings
from stepfront.trainers.diffusion.conditioning import make_condition
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import noise_schedule
from stepfront.trainers.networks.card import SupernetCard
from stepfront.trainers.networks.supernet_files import supernet_from_weights
from stepfront.trainers.step_losses.error_table import StepErrors
from stepfront.trainers.step_losses.step_errors import IMAGES, SEED, TEACHER_STEPS, Step, step_errors

STEP_ERRORS_FILE = "step_errors.npz"


@dataclass(frozen=True)
class StepErrorInputs:
    """What the errors are measured from: a supernet, how it is sampled, and the steps."""

    card: SupernetCard
    weights: dict[str, np.ndarray]
    sampler: SamplerSettings
    steps: tuple[Step, ...]

    @property
    def key(self) -> str:
        """Return a digest that changes with the supernet, its sampling or the steps."""
        made_from = (self.card.digest, self.sampler.clip, self.sampler.guidance, self.steps)
        return hashlib.sha256(repr((*made_from, TEACHER_STEPS, IMAGES, SEED)).encode()).hexdigest()

    def measure(self, device: torch.device) -> StepErrors:
        """Compute the errors on a device."""
        card = self.card
        weights = {name: torch.from_numpy(np.array(array)) for name, array in self.weights.items()}
        supernet = supernet_from_weights(card, weights)
        denoisers = {width: supernet.subnet(width).to(device) for width in supernet.widths}
        shape = (card.image_channels, card.resolution, card.resolution)
        condition = make_condition(card.network.classes, card.label_counts, self.sampler.guidance, 0)
        schedule, clip = noise_schedule(card.diffusion), self.sampler.clip
        return step_errors(
            Sampler(denoisers, schedule, Noise(0, shape), device, clip=clip, condition=condition), self.steps
        )


def read_step_errors(directory: Path, key: str) -> StepErrors | None:
    """Read the errors of a search directory; None where there are none, or those of another key."""
    stored = read_arrays(directory / STEP_ERRORS_FILE, key)
    if stored is None or not {"times", "start", "errors"} <= stored.keys():
        return None
    return StepErrors(tuple(map(float, stored["times"])), stored["start"], stored["errors"])


def write_step_errors(directory: Path, key: str, found: StepErrors) -> None:
    """Write the errors of a search directory."""
    arrays = {"times": np.array(found.times), "start": found.start, "errors": found.errors}
    write_arrays(directory / STEP_ERRORS_FILE, key, arrays)
