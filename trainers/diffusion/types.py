"""Name the callables that samplers and conditions pass around."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""x [B, ...], t [B] -> predicted noise [B, ...]; a plain subnet, or a closed form."""

Network = Callable[..., Tensor]
"""A `Denoiser`, or a conditional network: x [B, ...], t [B], label [B] -> predicted noise [B, ...]."""
