"""Learn from a teacher: the full width of another supernet, and the comparison of two predictions in frequencies.

A light network misses the high frequencies first, and they carry little of the squared error.  So Spectral Diffusion
(Yang et al. 2022, arXiv 2211.17106) weighs a student's distance to its teacher, per frequency, by the inverse of the
images' amplitude there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.data import to_float
from stepfront.trainers.latent_space import LatentSpace
from stepfront.trainers.networks.card import check_autoencoder
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import load_supernet
from stepfront.trainers.training.batches import NoisyBatch


class Teacher:
    """The predictions of a supernet's widest network; `digest` is that of its weights."""

    def __init__(
        self,
        directory: Path,
        student: Supernet,
        device: torch.device,
        autocast: torch.autocast,
        latents: LatentSpace | None = None,
    ) -> None:
        """Load the teacher onto `device`.

        Raises InputError when it is missing, damaged, or reads or predicts something else than the student, such
        as the latents of another autoencoder than `latents`.
        """
        supernet, card = load_supernet(directory)
        folder, digest = (None, None) if latents is None else (latents.autoencoder, latents.digest)
        check_autoencoder(card, folder, digest, directory)
        theirs, ours = _contract(supernet), _contract(student)
        for name, value in theirs.items():
            if value != ours[name]:
                raise InputError(
                    f"training.teacher: the supernet in {directory} has {name} {value}, this training has "
                    f"{ours[name]}; use a teacher with the same"
                )
        self.digest = card.digest
        self._network, self._autocast = supernet.backbone(1.0).to(device), autocast

    @torch.no_grad()
    def __call__(self, batch: NoisyBatch) -> Tensor:
        """Return its predictions [B, C, H, W] for a batch."""
        with self._autocast:
            predicted: Tensor = self._network(batch.x, batch.t, *(() if batch.label is None else (batch.label,)))
        return predicted.float()


def _contract(supernet: Supernet) -> dict[str, object]:
    side = supernet.resolution
    return {
        "images of": f"{supernet.image_channels}x{side}x{side}",
        "network.classes": supernet.settings.classes,
        **{f"diffusion.{name}": value for name, value in supernet.diffusion.model_dump().items()},
    }


MOST_IMAGES = 10_000
"""Images of which a mean spectrum is taken, spread evenly over the data."""

FLOOR_QUANTILE = 0.1
"""Amplitudes below this quantile of the frequencies' count as this one.

Images of 8 bits have exact zeros in their transforms, and one frequency would carry all of the weight.
"""

LEAST_AMPLITUDE = 0.01
"""Of the mean amplitude: in images that were enlarged, more frequencies than those of the quantile are empty."""


def spectrum(images: Tensor) -> Tensor:
    """Return the orthonormal Fourier transform of images [..., H, W], in float32 at least."""
    # There is no transform in bfloat16.
    return torch.fft.fft2(images if images.dtype == torch.float64 else images.float(), norm="ortho")


def mean_amplitude(images: NDArray[np.generic]) -> Tensor:
    """Return the mean amplitude of images (or latents) [N, C, H, W] at each frequency, [C, H, W], float64."""
    rows = np.unique(np.linspace(0, len(images) - 1, min(MOST_IMAGES, len(images))).astype(int))
    parts = np.array_split(rows, -(-len(rows) // 500))
    return sum((spectrum(to_float(images[part]).double()).abs().sum(0) for part in parts), torch.zeros(())) / len(rows)


def frequency_weights(amplitude: Tensor, floor: Tensor | float) -> Tensor:
    """Return 1 / max(amplitude, floor) for amplitudes [..., H, W], divided by its mean over the frequencies."""
    weights = 1 / amplitude.clamp(min=floor)
    return weights / weights.mean((-2, -1), keepdim=True)


def weights_of_data(images: NDArray[np.generic]) -> Tensor:
    """Return the weights of the frequencies of these images, [C, H, W] float32; their mean is 1 in each channel."""
    amplitude = mean_amplitude(images)
    each = amplitude.flatten(1)
    floor = torch.maximum(each.quantile(FLOOR_QUANTILE, dim=1), LEAST_AMPLITUDE * each.mean(1)).clamp(min=1e-9)
    return frequency_weights(amplitude, floor[:, None, None]).float()


def spectral_errors(predicted: Tensor, taught: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean squared distance [B] of two predictions [B, C, H, W] over all frequencies.

    With weights of 1 it is that over all pixels (Parseval).
    """
    return (weights * spectrum(predicted - taught).abs().square()).mean((1, 2, 3))
