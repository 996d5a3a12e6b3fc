"""Draw reproducible noise: a function of (seed, image, step) alone."""

from __future__ import annotations

import math
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
        """Return the starting noise of each image, [B, *shape]."""
        return self._draw(images, 0)

    def after_step(self, images: range, step: int) -> np.ndarray:
        """Return the noise that an ancestral solver adds after step `step`, [B, *shape]."""
        return self._draw(images, step + 1)

    def on(self, device: torch.device, dtype: torch.dtype, images: range, step: int | None = None) -> Tensor:
        """Return the starting noise, or with `step` the noise after it, as a tensor that must not be written to."""
        drawn = self.initial(images) if step is None else self.after_step(images, step)
        return torch.from_numpy(drawn).to(device, dtype)

    def _draw(self, images: range, block: int) -> np.ndarray:
        # The highest word of the counter separates steps; a draw would need 2^192 numbers to overlap with the next.
        drawn = np.empty((len(images), *self.shape), dtype=np.float32)
        for row, image in enumerate(images):
            generator = np.random.Generator(np.random.Philox(key=[self.seed, image], counter=[0, 0, 0, block]))
            drawn[row] = generator.standard_normal(self.shape, dtype=np.float32)
        return drawn


@dataclass(frozen=True)
class CachedNoise(Noise):
    """Noise that stays on the device once drawn: all plans of a search start from the same.

    Up to `limit` bytes are cached in all.
    """

    limit: float = math.inf

    def on(self, device: torch.device, dtype: torch.dtype, images: range, step: int | None = None) -> Tensor:
        """Return the cached noise, drawn when it is first asked for."""
        cached: dict[tuple[object, ...], Tensor] = self.__dict__.setdefault("_cached", {})
        key = (device, dtype, images, step)
        if key in cached:
            return cached[key]
        drawn = super().on(device, dtype, images, step)
        # All plans read in the same order: replacing the oldest by the newest would never find anything cached.
        if sum(tensor.nbytes for tensor in cached.values()) + drawn.nbytes <= self.limit:
            cached[key] = drawn
        return drawn
