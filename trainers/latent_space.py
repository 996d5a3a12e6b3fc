"""Describe a latent space: the autoencoder that defines it, and how a diffusion network reads its latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from stepfront.trainers.validation import Settings

if TYPE_CHECKING:  # a supernet's card has a LatentSpace, and is read where no torch is wanted
    from torch import Tensor

Latents = NDArray[np.floating]
"""What an encoder gives [N, C, H, W], float16 or float32, before shift and scale."""


class LatentSpace(Settings):
    """An autoencoder's latents as a diffusion network reads them: z = (encode(x) - shift) scale.

    Shift and scale are one number for all channels, as in the autoencoder's own config, or one per channel.
    """

    autoencoder: str = Field(description="folder of the autoencoder")
    digest: str = Field(description="sha256 of its weights and its config")
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    channels: int = Field(description="channels of a latent")
    resolution: int = Field(description="side of a latent")
    image_channels: int
    image_resolution: int

    @property
    def factor(self) -> int:
        """How many pixels a latent's pixel covers along one side."""
        return self.image_resolution // self.resolution

    def to_network(self, encoded: Tensor) -> Tensor:
        """Return encoded images [B, C, H, W] as the network reads them, in float32."""
        return (encoded.float() - self._per_channel(self.shift, encoded)) * self._per_channel(self.scale, encoded)

    def to_decoder(self, z: Tensor) -> Tensor:
        """Return what the network makes [B, C, H, W] as the decoder reads it: z / scale + shift."""
        return z.float() / self._per_channel(self.scale, z) + self._per_channel(self.shift, z)

    @staticmethod
    def _per_channel(values: tuple[float, ...], like: Tensor) -> Tensor:
        return like.float().new_tensor(values)[:, None, None]


@dataclass(frozen=True)
class LatentImages:
    """The encoded images of a dataset [N, C, H, W], mapped from files, and the space that they lie in.

    `mirrored` are the encoded mirror images of `train`; None where training mirrors nothing.
    """

    space: LatentSpace
    train: Latents
    mirrored: Latents | None
    held_out: Latents

    def clean(self, rows: NDArray[np.integer], mirrored: Tensor | None) -> Tensor:
        """Return training images as the network reads them, mirrored where `mirrored` [B] says so."""
        import torch

        encoded = self.train[rows]
        if mirrored is not None:
            assert self.mirrored is not None, "flips are encoded where data.flip is set"
            chosen = mirrored.numpy()
            encoded[chosen] = self.mirrored[rows[chosen]]
        return self.space.to_network(torch.from_numpy(encoded))

    def clean_held_out(self, rows: NDArray[np.integer] | slice) -> NDArray[np.float32]:
        """Return held-out images as the network reads them, float32 [B, C, H, W]."""
        import torch

        return self.space.to_network(torch.from_numpy(np.array(self.held_out[rows]))).numpy()
