"""Compute the Haar wavelet transform of images and its inverse, as fixed operations without parameters.

One level splits each 2x2 square a b / c d into four bands, in PyWavelets' order: LL = (a + b + c + d) / 2, the means;
H = (a + b - c - d) / 2; V = (a - b + c - d) / 2; D = (a - b - c + d) / 2.  The transform is orthonormal, so it keeps
the sum of squares and its inverse is its transpose.  It consists of additions, which are not MACs here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def haar(x: Tensor) -> Tensor:
    """Return the bands LL, H, V, D of x [B, C, H, W] as [B, 4, C, H/2, W/2]; H and W must be even."""
    return _butterfly(x[..., 0::2, 0::2], x[..., 0::2, 1::2], x[..., 1::2, 0::2], x[..., 1::2, 1::2], dim=1)


def inverse_haar(bands: Tensor) -> Tensor:
    """Return the images [B, C, 2H, 2W] of bands [B, 4, C, H, W]."""
    # The matrix of the butterfly is its own inverse.
    low, high, across, diagonal = bands.unbind(1)
    phases = _butterfly(low, high, across, diagonal, dim=2)
    return F.pixel_shuffle(phases.flatten(1, 2), 2)


def _butterfly(a: Tensor, b: Tensor, c: Tensor, d: Tensor, dim: int) -> Tensor:
    rows, columns = (a + b) / 2, (a - b) / 2
    other_rows, other_columns = (c + d) / 2, (c - d) / 2
    return torch.stack(
        [rows + other_rows, rows - other_rows, columns + other_columns, columns - other_columns], dim=dim
    )
