"""Load the autoencoder of a folder, with the factors that its config gives and a digest that identifies it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stepfront.errors import InputError
from stepfront.files import read_json
from stepfront.trainers.interop.diffusers_folder import AUTOENCODERS
from stepfront.trainers.interop.model_weights import read_model
from stepfront.trainers.latents.diffusers_model import DEFAULT_SCALE, build_model, decode_with, encode_with
from stepfront.trainers.latents.taesd import Taesd, is_raw, raw_files
from stepfront.trainers.networks.weights import read_weights, weights_digest

RAW = "taesd"
"""The kind of an autoencoder that is a TAESD's raw weights; other kinds are classes of diffusers."""

BLOCK_PIXELS = 1 << 18
"""Pixels that are encoded or decoded in one call, at least one image's: 64 images of 64x64."""


@dataclass(frozen=True)
class Factors:
    """Shift and scale of z = (encode(x) - shift) scale, one number for all channels or one per channel."""

    shift: tuple[float, ...]
    scale: tuple[float, ...]


class Autoencoder:
    """An encoder and a decoder on one device, in float32; without `encoder.` among the weights a decoder alone."""

    def __init__(self, kind: str, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        """Build the autoencoder around `weights`.

        Raises InputError when they do not fit the kind and config, or when diffusers is missing.
        """
        self.kind, self.config = kind, dict(config)
        weights = {name: value.float() for name, value in weights.items()}
        if kind == RAW:
            with torch.device("meta"):
                self.model: nn.Module = Taesd(weights)
            self.model.load_state_dict(weights, assign=True)
        else:
            self.model = build_model(kind, config, weights)
        self.model.requires_grad_(False).eval()

    @property
    def weights(self) -> dict[str, Tensor]:
        """Return all weights by name."""
        return dict(self.model.state_dict())

    @property
    def image_channels(self) -> int:
        """Return the channels of the images that it encodes."""
        first = next(name for name in self.weights if name.startswith("encoder.") and self.weights[name].ndim == 4)
        return self.weights[first].shape[1]

    def to(self, device: torch.device | str) -> Autoencoder:
        """Move the weights to a device."""
        self.model.to(device)
        return self

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """Return the mean latents [B, c, h, w] of images [B, C, H, W] in [-1, 1], before shift and scale."""
        return self.model.encode(images) if isinstance(self.model, Taesd) else encode_with(self.model, images)

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Return the images [B, C, H, W] in about [-1, 1] of latents [B, c, h, w] before shift and scale."""
        return decoded_by(self.model, latents)

    @property
    def factors(self) -> Factors | None:
        """Return shift and scale of the config, or of its class where diffusers has a default; None without any.

        Raises InputError for factors that are no finite numbers above zero.
        """
        return _factors(self.config, DEFAULT_SCALE.get(self.kind))

    @property
    def digest(self) -> str:
        """Return the sha256 over kind, config and weights."""
        content = json.dumps([self.kind, self.config, weights_digest(self.weights)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def decoded_by(model: nn.Module, latents: Tensor) -> Tensor:
    """Return the images of latents by either kind of model, ours or diffusers'."""
    return model.decode(latents) if isinstance(model, Taesd) else decode_with(model, latents)


def load_autoencoder(folder: Path) -> Autoencoder:
    """Load the autoencoder in a folder: one of `AUTOENCODERS` as diffusers saves it, or raw TAESD weights.

    Also the folder of a pipeline that has one in `vae` or `vqvae`.  Raises InputError when there is none, when its
    weights are not safetensors, damaged or of another network, and when diffusers is needed and missing.
    """
    if not folder.is_dir():
        raise InputError(f"data.autoencoder: {folder} is no folder; give the folder of an autoencoder of diffusers")
    if (folder / "model_index.json").exists():
        folder = next((folder / part for part in ("vae", "vqvae") if (folder / part / "config.json").exists()), folder)
    if is_raw(folder):
        weights = {
            f"{part}.{name}": value
            for part, file in raw_files(folder).items()
            for name, value in read_weights(file).items()
        }
        try:
            return Autoencoder(RAW, {}, weights)
        except InputError as error:
            raise InputError(f"data.autoencoder: {folder}: {error}") from None
    config = _read_config(folder)
    _, _, weights = read_model(folder)
    try:
        return Autoencoder(str(config["_class_name"]), _plain(config), weights)
    except InputError as error:
        raise InputError(f"data.autoencoder: {folder}: {error}") from None


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").exists():
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:6]) or "nothing"
        raise InputError(
            f"data.autoencoder: {folder} has no config.json (found: {found}); possible: a folder of "
            f"{' or '.join(AUTOENCODERS)}, or TAESD's raw ..._encoder.safetensors and ..._decoder.safetensors"
        )
    config = read_json(folder / "config.json", "autoencoder's config")
    kind = config.get("_class_name")
    if kind not in AUTOENCODERS:
        raise InputError(f"data.autoencoder: {folder} holds a {kind}; possible: {', '.join(AUTOENCODERS)}")
    return config


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config without what says by whom it was written."""
    return {key: value for key, value in config.items() if not key.startswith("_")}


def _factors(config: Mapping[str, Any], default: float | None) -> Factors | None:
    shift, scale = config.get("shift_factor"), config.get("scaling_factor", default)
    means, stds = config.get("latents_mean"), config.get("latents_std")
    if shift is None and scale is None and means is None and stds is None:
        return None
    scale = 1.0 if scale is None else scale
    if means is not None and stds is not None:
        # As pipelines of diffusers apply them: (x - mean) scaling_factor / std.
        numbers = (*means, *stds, scale)
        if len(means) == len(stds) and _finite(numbers) and min(*stds, scale) > 0:
            return Factors(tuple(map(float, means)), tuple(float(scale) / float(std) for std in stds))
        raise InputError("data.autoencoder: latents_mean and latents_std of its config are not finite, or not above 0")
    shift = 0.0 if shift is None else shift
    if not _finite((shift, scale)) or scale <= 0:
        raise InputError(
            f"data.autoencoder: its config has scaling_factor {scale} and shift_factor {shift}; finite numbers are "
            "needed, and a scale above 0"
        )
    return Factors((float(shift),), (float(scale),))


def _finite(numbers: tuple[Any, ...]) -> bool:
    return all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
