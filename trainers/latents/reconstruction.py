"""Measure what an autoencoder loses by itself: held-out images, encoded and decoded, under the judge of a search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stepfront.files import write_json
from stepfront.trainers.data import ImageData, Pixels, blocks, to_float
from stepfront.trainers.latents.load_images import load_decoder
from stepfront.trainers.metrics.features import FeatureNetwork, PackedFeatures
from stepfront.trainers.metrics.fid import Moments, Reference
from stepfront.trainers.validation import read_result

RECONSTRUCTION_FILE = "reconstruction.json"
MOST_IMAGES = 2048
"""Held-out images that are measured, at most."""

_BLOCK = 256


@dataclass(frozen=True)
class Reconstruction:
    """FID of decoded held-out images, the floor of every plan's FID, and what belongs to it.

    `real_fid` is that of the same images as they are, `psnr` the peak signal-to-noise ratio of the decoded ones in dB,
    from their mean squared error.
    """

    fid: float
    real_fid: float
    psnr: float
    images: int
    features: str

    @property
    def sentence(self) -> str:
        """One line for people."""
        return (
            f"the autoencoder alone scores FID {self.fid:.4g} ({self.images:,} held-out images encoded and decoded, "
            f"{self.psnr:.1f} dB; as they are: {self.real_fid:.4g}): no plan is expected below that"
        )


def ensure_reconstruction(
    data: ImageData, judge: tuple[PackedFeatures, Reference], directory: Path, device: torch.device
) -> Reconstruction | None:
    """Return the reconstruction's score, measured once per supernet and judge; None for pixels."""
    if data.latents is None:
        return None
    packed, reference = judge
    path = directory / RECONSTRUCTION_FILE
    made_from = [data.latents.space.digest, data.fingerprint, packed.digest, packed.name, reference.content, "drawn"]
    if path.exists():
        saved = read_result(path, "score of the reconstruction", Reconstruction, made_from)
        if saved is not None:
            return saved
    found = _measure(data, packed.unpack(device), reference, device)
    write_json(path, asdict(found) | {"made_from": made_from})
    return found


def _measure(data: ImageData, features: FeatureNetwork, reference: Reference, device: torch.device) -> Reconstruction:
    packed = load_decoder(data)
    assert packed is not None
    decoder, rows = packed.unpack(device), data.held_out_sample(MOST_IMAGES)
    images, errors = data.held_out_images[rows], []

    def decoded(first: int, pixels: Pixels) -> Tensor:
        z = torch.from_numpy(data.clean_held_out(rows[first : first + len(pixels)])).to(device)
        back = decoder.check_finite(z, decoder(z))
        errors.append((back.clamp(-1, 1).cpu() - to_float(pixels)).double().square().mean((1, 2, 3)))
        return back

    fid = reference.distance(_moments(features, images, decoded))
    real = reference.distance(_moments(features, images, lambda first, pixels: to_float(pixels)))
    error = float(torch.cat(errors).mean())
    # Pixels span 2, from -1 to 1; equal images have no finite ratio, which JSON could not hold.
    psnr = 10 * np.log10(4 / max(error, 1e-12))
    return Reconstruction(fid, real, float(psnr), len(rows), features.name)


def _moments(features: FeatureNetwork, images: Pixels, made: Callable[[int, Pixels], Tensor]) -> Moments:
    return Moments.of(features(made(number * _BLOCK, pixels)) for number, pixels in enumerate(blocks(images, _BLOCK)))
