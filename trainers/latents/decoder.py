"""Decode what a sampler makes into images, on any worker, and count what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stepfront.errors import InputError
from stepfront.trainers.latent_space import LatentSpace
from stepfront.trainers.latents.autoencoder import BLOCK_PIXELS, Autoencoder, decoded_by

MOST_DECODED = 32
"""Images that are decoded in one call, at most; from 64 on diffusers takes another path, which no export can follow."""


@dataclass(frozen=True)
class PackedDecoder:
    """The decoder of an autoencoder as plain arrays, so that a worker on another machine needs no file."""

    space: LatentSpace
    kind: str
    config: Mapping[str, Any]
    weights: Mapping[str, np.ndarray] = field(repr=False)

    @staticmethod
    def of(autoencoder: Autoencoder, space: LatentSpace) -> PackedDecoder:
        """Pack the decoder of an autoencoder that encoded images into `space`."""
        parts = ("decoder.", "post_quant_conv.", "quantize.")  # a VQModel decodes the nearest entries of its codebook
        weights = {n: v.cpu().numpy() for n, v in autoencoder.weights.items() if n.startswith(parts)}
        return PackedDecoder(space, autoencoder.kind, autoencoder.config, weights)

    def unpack(self, device: torch.device) -> Decoder:
        """Return the decoder on a device."""
        # Copies: the arrays may be read-only views of shared memory.
        weights = {name: torch.from_numpy(np.array(array)) for name, array in self.weights.items()}
        return Decoder(Autoencoder(self.kind, self.config, weights).to(device), self.space, self.block)

    @property
    def block(self) -> int:
        """How many images are decoded in one call."""
        return max(1, min(MOST_DECODED, BLOCK_PIXELS // self.space.image_resolution**2))

    @property
    def macs(self) -> int:
        """The multiply-accumulates of decoding one image, counted."""
        weights = {name: torch.empty(array.shape, device="meta") for name, array in self.weights.items()}
        decoder = Autoencoder(self.kind, self.config, weights)
        side = self.space.resolution
        with FlopCounterMode(display=False) as counter:
            decoder.decode(torch.empty(1, self.space.channels, side, side, device="meta"))
        return int(counter.get_total_flops()) // 2


class _DecodesLatents(nn.Module):
    """An autoencoder's decoder behind the scale and shift of its latents."""

    def __init__(self, model: nn.Module, space: LatentSpace) -> None:
        super().__init__()
        self._model, self._space = model, space

    def forward(self, z: Tensor) -> Tensor:
        """Return images [B, C, H, W] of latents [B, c, h, w]."""
        return decoded_by(self._model, self._space.to_decoder(z))


class Decoder:
    """A decoder on one device that takes latents as a diffusion network makes them."""

    def __init__(self, autoencoder: Autoencoder, space: LatentSpace, block: int) -> None:
        self.space, self._block = space, block
        self.module = _DecodesLatents(autoencoder.model, space)

    @torch.inference_mode()
    def __call__(self, z: Tensor) -> Tensor:
        """Return images [B, C, H, W] in about [-1, 1] of latents [B, c, h, w], a few at a time."""
        return torch.cat([self.module(part) for part in torch.split(z.float(), self._block)])

    def why_not_finite(self, z: Tensor, images: Tensor) -> str:
        """Return in words that finite latents were decoded to images that are not; empty where they were not."""
        if not torch.isfinite(z).all() or torch.isfinite(images).all():
            return ""
        return (
            f"the autoencoder in {self.space.autoencoder} decodes finite latents to values that are not finite; its "
            "weights are damaged, or were saved in a precision that overflows"
        )

    def check_finite(self, z: Tensor, images: Tensor) -> Tensor:
        """Return the images.  Raises InputError where finite latents were decoded to others."""
        if reason := self.why_not_finite(z, images):
            raise InputError(reason)
        return images
