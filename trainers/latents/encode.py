"""Encode the images of a dataset once: the mean of each image's latents, and of its mirror image's where flips are on.

Flips are encoded and not mirrored in latent space, because an encoder is not symmetric.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data import ImageData, Pixels, Progress, blocks, to_float
from stepfront.trainers.latent_space import LatentSpace
from stepfront.trainers.latents.autoencoder import BLOCK_PIXELS, Autoencoder, Factors
from stepfront.trainers.latents.diffusers_model import DEFAULT_SCALE

_FAR_FROM_ONE = (0.5, 2.0)
"""Deviations of scaled latents that are taken as near 1."""


def encode_images(
    data: ImageData,
    autoencoder: Autoencoder,
    settings: DataSettings,
    folder: Path,
    device: torch.device,
    progress: Progress = lambda done, total: None,
) -> LatentSpace:
    """Write the latents of all images as .npy files into `folder`, and return their space.

    Shift and scale are the config's; where it has neither, each channel is brought to mean 0 and deviation 1 over the
    training images.  A scale that leaves them far from deviation 1 is doubted in the log.

    Raises InputError when the images do not fit the autoencoder, or are encoded to NaN.
    """
    factor, channels = check_fit(data, autoencoder)
    side = data.resolution // factor
    splits = {"train": data.images, "held_out": data.held_out_images}
    if settings.flip:
        splits["mirrored"] = data.images
    total, done = sum(map(len, splits.values())), 0
    moments = _ChannelMoments(channels)
    autoencoder.to(device)
    for name, images in splits.items():
        shape = (len(images), channels, side, side)
        with open(folder / f"{name}.npy", "wb") as file:
            _write_header(file, settings.latent_type, shape)
            for encoded in _encoded(images, autoencoder, name == "mirrored", device):
                with np.errstate(over="ignore"):  # refused below
                    stored = encoded.astype(settings.latent_type)
                if not np.isfinite(stored).all():
                    raise InputError(_not_finite(encoded, settings))
                if name == "train":
                    moments.add(encoded)
                file.write(stored.tobytes())
                done += len(encoded)
                progress(done, total)
            file.flush()
            os.fsync(file.fileno())
    factors = autoencoder.factors or moments.factors
    _check_channels(factors, channels)
    if autoencoder.factors is not None:
        _doubt_scale(autoencoder, moments.deviation(factors), settings)
    return LatentSpace(
        autoencoder=str(settings.autoencoder),
        digest=autoencoder.digest,
        shift=factors.shift,
        scale=factors.scale,
        channels=channels,
        resolution=side,
        image_channels=data.channels,
        image_resolution=data.resolution,
    )


def check_fit(data: ImageData, autoencoder: Autoencoder) -> tuple[int, int]:
    """Return the factor of the autoencoder and the channels of its latents.

    Raises InputError when the images have other channels, or a side that the factor does not divide.
    """
    if autoencoder.image_channels != data.channels:
        wanted = autoencoder.image_channels
        raise InputError(
            f"data.autoencoder encodes images of {wanted} channels, and these have {data.channels}; "
            f"set data.channels={wanted}"
            + ("" if wanted in (1, 3) else ", which is not possible: use another autoencoder")
        )
    side = 64
    with torch.device("cpu"):
        encoded = autoencoder.to("cpu").encode(torch.zeros(1, data.channels, side, side))
    factor = side // encoded.shape[2]
    if data.resolution % factor or data.resolution < factor:
        near = max(1, round(data.resolution / factor)) * factor
        raise InputError(
            f"data.autoencoder divides the side by {factor}, and images of {data.resolution} pixels can't be divided "
            f"so; set data.size={near} or another multiple of {factor}"
        )
    return factor, encoded.shape[1]


def _encoded(
    images: Pixels, autoencoder: Autoencoder, mirrored: bool, device: torch.device
) -> Iterator[NDArray[np.float32]]:
    count = max(1, BLOCK_PIXELS // images.shape[2] ** 2)
    for block in blocks(images, count):
        x = to_float(block).to(device)
        yield autoencoder.encode(x.flip(3) if mirrored else x).float().cpu().numpy()


def _write_header(file: BinaryIO, kind: str, shape: tuple[int, ...]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(kind)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _not_finite(encoded: NDArray[np.float32], settings: DataSettings) -> str:
    if np.isfinite(encoded).all():
        largest = float(np.abs(encoded).max())
        return f"latents of up to {largest:.3g} do not fit into float16; set data.latent_type=float32"
    return f"data.autoencoder: {settings.autoencoder} encodes images to values that are not finite; it is damaged"


def _check_channels(factors: Factors, channels: int) -> None:
    if any(len(values) not in (1, channels) for values in (factors.shift, factors.scale)):
        raise InputError(
            f"data.autoencoder: its config has {len(factors.shift)} means for latents of {channels} channels"
        )


def _doubt_scale(autoencoder: Autoencoder, deviation: float, settings: DataSettings) -> None:
    """Warn where the config's scale, or its class's default, makes latents that are far from deviation 1."""
    if _FAR_FROM_ONE[0] <= deviation <= _FAR_FROM_ONE[1]:
        return
    given = autoencoder.config.get("scaling_factor")
    used = given or DEFAULT_SCALE.get(autoencoder.kind, 1.0)
    logging.getLogger("stepfront").warning(
        "data.autoencoder %s: under its scaling_factor (%s) the training latents have deviation %.3g, far from 1; "
        "where the network is trained here and not imported, set scaling_factor to %.4g in its config.json",
        settings.autoencoder,
        f"{used:g}" if given else f"none, so {used:g}",
        deviation,
        used / deviation if deviation > 0 else used,
    )


class _ChannelMoments:
    """Mean and standard deviation per channel, in float64."""

    def __init__(self, channels: int) -> None:
        self._count, self._sum, self._squares = 0, np.zeros(channels), np.zeros(channels)

    def add(self, encoded: NDArray[np.float32]) -> None:
        """Add latents [B, C, H, W]."""
        values = encoded.astype(np.float64)
        self._count += values.size // values.shape[1]
        self._sum += values.sum((0, 2, 3))
        self._squares += np.square(values).sum((0, 2, 3))

    def deviation(self, factors: Factors) -> float:
        """Return the standard deviation of all numbers, each around the mean of its channel, after these factors."""
        variance = np.maximum(self._squares / self._count - (self._sum / self._count) ** 2, 0)
        return float(np.sqrt(np.mean(variance * np.square(factors.scale))))

    @property
    def factors(self) -> Factors:
        """Return the shift and scale that bring each channel to mean 0 and standard deviation 1.

        Raises InputError where a channel is constant.
        """
        mean = self._sum / self._count
        variance = self._squares / self._count - mean**2
        if not (variance > 1e-12).all():
            raise InputError("data.autoencoder encodes all images to the same value in a channel, which has no scale")
        return Factors(tuple(mean.tolist()), tuple((1 / np.sqrt(variance)).tolist()))
