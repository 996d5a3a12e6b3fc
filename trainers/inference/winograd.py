"""Compute 3x3 convolutions by Winograd's minimal filtering, F(4x4, 3x3): 36 products instead of 144.

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, arXiv 1509.09308, section 4.  A tile of 6x6 pixels
and the 3x3 filter are each transformed to 36 numbers, multiplied element by element (over the channels: 36 matrix
products), and transformed back to 4x4 pixels.  cuDNN does this by itself; PyTorch's kernels on CPUs do not.  A subnet's
weights never change, so its filters are transformed once and stored, in four times the memory of the weights.

`python -m benchmarks.winograd` shows the gain per layer, from which the constants here follow.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST_CHANNELS = 40
"""Of c channels in and k out, c k / (c + k) must be this: the transforms cost c + k, what they save c k."""

LEAST_SAVING = 2.0
"""Products without over products with tiles: 4 where 4 divides the resolution, 1 for images of 2x2."""

CHUNK_BYTES = 1 << 20
"""Of one buffer of a thread.  What a chunk writes must still be in the processor's cache when it is read."""

LEAST_TILES = 128
"""Of a chunk: each reads all of the filters, and those may not fit into the cache."""

OUT, IN = 4, 6
"""Pixels of a tile along an axis, after and before the convolution."""


def use_winograd(network: nn.Module) -> None:
    """Replace every suitable layer of `network` by a WinogradConv2d."""
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if suits(layer):
                setattr(parent, name, WinogradConv2d(layer))  # type: ignore[arg-type]


def suits(layer: nn.Module) -> bool:
    """Return whether `layer` is a plain 3x3 convolution with enough channels for this to pay off."""
    if not isinstance(layer, nn.Conv2d) or layer.groups != 1 or layer.padding_mode != "zeros":
        return False
    of = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    c, k = layer.in_channels, layer.out_channels
    return of == ((3, 3), (1, 1), (1, 1), (1, 1)) and c * k >= LEAST_CHANNELS * (c + k)


class WinogradConv2d(nn.Module):
    """A convolution equal to `layer` (see `suits`) to a relative error of about 2e-6 in float32; inference only."""

    _filters: Tensor
    _to_tiles: Tensor
    _from_tiles: Tensor

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self._direct = layer.weight, layer.bias  # unchanged: the widest ones are shared with other processes
        weight = layer.weight
        # In float64: it happens once, and an error in the filters would affect every output.
        change = torch.tensor(_FILTER, dtype=torch.float64, device=weight.device)
        filters = torch.einsum("ai,bj,kcij->abck", change, change, weight.double())
        self.register_buffer("_filters", filters.flatten(0, 1).to(weight.dtype).contiguous())
        # Both axes at once: one dense product in place of many small sums.
        for name, rows in (("_to_tiles", _INPUT), ("_from_tiles", _OUTPUT)):
            matrix = torch.tensor(rows, dtype=torch.float64, device=weight.device)
            self.register_buffer(name, torch.kron(matrix, matrix).to(weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, K, H, W] for x [N, C, H, W]; channels-last where x is, or where tiles pay off."""
        (weight, bias), (images, channels, height, width) = self._direct, x.shape
        down, across, outputs = -(-height // OUT), -(-width // OUT), len(weight)
        if not images or height * width * 9 < LEAST_SAVING * down * across * IN * IN:
            return F.conv2d(x, weight, bias, padding=1)
        tiles_of_cache = CHUNK_BYTES * torch.get_num_threads() // (IN * IN * max(channels, outputs) * x.element_size())
        most = max(1, max(tiles_of_cache, LEAST_TILES) // (down * across))
        chunk = -(-images // -(-images // most))  # as many chunks as that makes, of equal size
        many = chunk * down * across

        pixels = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, across * OUT - width + 1, 1, down * OUT - height + 1))
        tiles = pixels.unfold(1, IN, OUT).unfold(2, IN, OUT).permute(4, 5, 0, 1, 2, 3)  # [IN, IN, N, down, across, C]
        result = x.new_empty(images, down, OUT, across, OUT, outputs)
        cut, before = x.new_empty(IN * IN, many * channels), x.new_empty(IN * IN, many * channels)
        product, after = x.new_empty(IN * IN, many, outputs), x.new_empty(OUT * OUT, many * outputs)
        for first in range(0, images, chunk):
            # The last chunk may be shorter; what it leaves in the buffers is computed and not taken.
            here = min(chunk, images - first)
            cut.view(IN, IN, chunk, down, across, channels)[:, :, :here].copy_(tiles[:, :, first : first + here])
            torch.mm(self._to_tiles, cut, out=before)
            torch.bmm(before.view(IN * IN, many, channels), self._filters, out=product)
            torch.mm(self._from_tiles, product.view(IN * IN, -1), out=after)
            whole = after.view(OUT, OUT, chunk, down, across, outputs).permute(2, 3, 0, 4, 1, 5)[:here]
            taken = result[first : first + here]
            if bias is None:
                taken.copy_(whole)
            else:
                torch.add(whole, bias, out=taken)
        whole = result.view(images, down * OUT, across * OUT, outputs)
        return whole[:, :height, :width].contiguous().permute(0, 3, 1, 2)


_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_FILTER = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OUTPUT = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)
