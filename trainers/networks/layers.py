"""Build layers whose channels come in segments, and slice a wide network's weights for a narrow one.

A network is always a plain torch module built for one width.  Each of its layers records the *segments* of its channel
axes; a concatenated skip connection makes two.  A narrow network owns the first channels of each segment, along every
axis of every parameter.  No layer holds a width as state, and none slices in its forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import cast

import torch
from torch import Tensor, nn

Segments = tuple[int, ...]
"""Channel counts of the pieces that are concatenated along one axis, such as (64, 32)."""


def conv(inputs: Segments, outputs: Segments, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Make a convolution that keeps the resolution, or divides it by `stride`."""
    layer = nn.Conv2d(sum(inputs), sum(outputs), kernel, stride=stride, padding=kernel // 2)
    return cast(nn.Conv2d, _record_segments(layer, weight=(outputs, inputs), bias=(outputs,)))


def linear(inputs: Segments, outputs: Segments) -> nn.Linear:
    """Make an affine map of the last axis."""
    layer = nn.Linear(sum(inputs), sum(outputs))
    return cast(nn.Linear, _record_segments(layer, weight=(outputs, inputs), bias=(outputs,)))


def embedding(rows: int, channels: Segments) -> nn.Embedding:
    """Make a table with one learned vector for each integer below `rows`."""
    layer = nn.Embedding(rows, sum(channels))
    return cast(nn.Embedding, _record_segments(layer, weight=((rows,), channels)))


def norm(channels: Segments, most_groups: int, group_channels: int, eps: float = 1e-5) -> nn.GroupNorm:
    """Make a group norm with the largest number of groups that fits, at most `most_groups`."""
    layer = nn.GroupNorm(groups_for(sum(channels), most_groups, group_channels), sum(channels), eps)
    return cast(nn.GroupNorm, _record_segments(layer, weight=(channels,), bias=(channels,)))


def groups_for(channels: int, most_groups: int, group_channels: int) -> int:
    """Return the largest divisor of `channels` up to `most_groups` that leaves `group_channels` in each group.

    DDSM keeps 32 groups at every width: 0.375 then crashes, and 0.25 of 128 channels is an instance norm.
    """
    most = max(1, min(most_groups, channels // group_channels))
    return next(g for g in range(most, 0, -1) if channels % g == 0)


def _record_segments(layer: nn.Module, **axes: tuple[Segments, ...]) -> nn.Module:
    layer.segments = axes  # type: ignore[assignment]
    return layer


def parameter_segments(network: nn.Module) -> dict[str, tuple[Segments, ...]]:
    """Return the segments of the sliceable leading axes of each parameter of `network`.

    Raises TypeError when a parameter belongs to no layer of this module.
    """
    found: dict[str, tuple[Segments, ...]] = {}
    for prefix, layer in network.named_modules():
        for name, axes in getattr(layer, "segments", {}).items():
            found[f"{prefix}.{name}" if prefix else name] = axes
    missing = {name for name, _ in network.named_parameters()} - set(found)
    if missing:
        raise TypeError(f"parameters without segments can't be sliced to a width: {sorted(missing)}")
    return found


def slice_parameters(
    wide: Mapping[str, Tensor],
    wide_segments: Mapping[str, tuple[Segments, ...]],
    narrow_segments: Mapping[str, tuple[Segments, ...]],
) -> dict[str, Tensor]:
    """Return the narrow network's parameters as differentiable slices of the wide one's.

    Each axis gives the first channels of every segment, so a narrow decoder reads the skip's own columns.
    """
    sliced = {}
    for name, axes in narrow_segments.items():
        weights = wide[name]
        for axis, (own, all_channels) in enumerate(zip(axes, wide_segments[name], strict=True)):
            weights = _take(weights, axis, own, all_channels)
        sliced[name] = weights
    return sliced


def shared_views(
    wide: Tensor, narrow: Tensor, wide_axes: tuple[Segments, ...], narrow_axes: tuple[Segments, ...]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield views of the values that a parameter has at two widths: pairs (wide, narrow) of one shape.

    There is a pair for each combination of segments.  The narrow views cover the narrow parameter exactly once.
    """
    pieces = [list(_pieces(own, other)) for own, other in zip(narrow_axes, wide_axes, strict=True)]
    for combination in product(*pieces):
        wide_view, narrow_view = wide, narrow
        for axis, (wide_start, narrow_start, length) in enumerate(combination):
            wide_view = wide_view.narrow(axis, wide_start, length)
            narrow_view = narrow_view.narrow(axis, narrow_start, length)
        yield wide_view, narrow_view


def _pieces(own: Segments, wide: Segments) -> Iterator[tuple[int, int, int]]:
    """Yield (start in the wide axis, start in the narrow axis, length) of each segment; one where nothing is cut."""
    if own == wide:
        yield 0, 0, sum(own)
        return
    for i, length in enumerate(own):
        yield sum(wide[:i]), sum(own[:i]), length


def _take(weights: Tensor, axis: int, own: Segments, wide: Segments) -> Tensor:
    if own == wide:
        return weights
    starts = [sum(wide[:i]) for i in range(len(wide))]
    pieces = [weights.narrow(axis, start, length) for start, length in zip(starts, own, strict=True)]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=axis)
