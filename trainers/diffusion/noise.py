"""Reproducible noise: a function of (seed, image, step) alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Noise:
    """Standard normal float32 noise of `shape` for any image and step, by a counter-based generator (Philox)."""

    seed: int
    shape: tuple[int, ...]

    def initial(self, images: range) -> np.ndarray:
        """The starting noise of each image, [B, *shape]."""
        return self._draw(images, 0)

    def fresh(self, images: range, step: int) -> np.ndarray:
        """The noise that an ancestral solver adds after step `step`, [B, *shape]."""
        return self._draw(images, step + 1)

    def on(self, device: torch.device, dtype: torch.dtype, images: range, step: int | None = None) -> Tensor:
        """The starting noise, or with `step` the fresh noise after it, as a tensor that nobody writes to."""
        drawn = self.initial(images) if step is None else self.fresh(images, step)
        return torch.from_numpy(drawn).to(device, dtype)

    def _draw(self, images: range, block: int) -> np.ndarray:
        # The highest word of the counter separates steps; a draw would need 2^192 numbers to run into the next.
        drawn = np.empty((len(images), *self.shape), dtype=np.float32)
        for row, image in enumerate(images):
            generator = np.random.Generator(np.random.Philox(key=[self.seed, image], counter=[0, 0, 0, block]))
            drawn[row] = generator.standard_normal(self.shape, dtype=np.float32)
        return drawn


@dataclass(frozen=True)
class KeptNoise(Noise):
    """Noise that stays on the device once drawn, `limit` bytes at most: every plan of a search is made of the same."""

    limit: float = 0.0

    def on(self, device: torch.device, dtype: torch.dtype, images: range, step: int | None = None) -> Tensor:
        kept: dict[tuple[object, ...], Tensor] = self.__dict__.setdefault("_kept", {})
        key = (device, dtype, images, step)
        if key in kept:
            return kept[key]
        drawn = super().on(device, dtype, images, step)
        # Each plan reads it in the same order: to let the oldest go for the newest would keep nothing that is read.
        if step is None or sum(tensor.nbytes for tensor in kept.values()) + drawn.nbytes <= self.limit:
            kept[key] = drawn
        return drawn
