"""Sort the channels of a U-Net by importance, without changing what it computes at full width.

A narrow network keeps the first channels of each segment, so the most important ones should come first.  A channel's
importance is the L1 norm of the weights that read it (Cai et al. 2020, Once-for-All, section 3.3), times the scale of
the norm in between.  Channels that are added to each other move together, and the groups of group norms stay intact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn

from stepfront.trainers.networks.unet import UNet
from stepfront.trainers.networks.unet_blocks import Attention, Double, Halve, ResidualBlock

Cuts = frozenset[int]
"""Where the pieces of one partition of a stream's channels end; 0 and the last channel only if a piece ends there."""


@dataclass
class Stream:
    """Channels that every layer reads in the same order: an activation, and everything that is added to it."""

    channels: int
    importance: Tensor
    places: list[tuple[Tensor, int, int]] = field(default_factory=list)  # (weights, axis, first index)
    cuts: list[Cuts] = field(default_factory=list)

    def cut(self, first: int, size: int) -> None:
        """Add a partition into pieces of `size` channels, of which the first begins `first` channels earlier."""
        self.cuts.append(frozenset(i for i in range(self.channels + 1) if (first + i) % size == 0))


def sort_channels(network: UNet) -> list[list[int]]:
    """Permute the weights of `network` in place; its output stays the same up to rounding.

    Returns, for each stream, where each channel was before.
    """
    found = streams(network)
    orders = [arrange(stream.importance, stream.cuts) for stream in found]
    permute(found, orders)
    return [order.tolist() for order in orders]


def restore_channels(network: UNet, orders: Sequence[Sequence[int]]) -> None:
    """Undo `sort_channels`, bit for bit, on a network of the same settings."""
    permute(streams(network), [torch.tensor(order).argsort() for order in orders])


@torch.no_grad()
def permute(found: Sequence[Stream], orders: Sequence[Tensor]) -> None:
    """Put the channels of each stream into an order, in place."""
    for stream, order in zip(found, orders, strict=True):
        for weights, axis, first in stream.places:
            own = weights.narrow(axis, first, stream.channels)
            own.copy_(own.index_select(axis, order))


def streams(network: UNet) -> list[Stream]:
    """Return the streams of a network, in the order of its forward pass."""
    return _Walk(network).found


def arrange(importance: Tensor, cuts: Sequence[Cuts]) -> Tensor:
    """Return an order [C] of falling importance, as far as each partition in `cuts` still maps to itself.

    Pieces that all partitions cut alike may change places, and so may the channels of a piece that none cuts further.
    """
    return torch.tensor(_arrange(importance.tolist(), 0, len(importance), list(cuts)))


def _arrange(importance: list[float], low: int, high: int, cuts: list[Cuts]) -> list[int]:
    cutting = [c for c in cuts if any(low < i < high for i in c)]
    if not cutting:
        return sorted(range(low, high), key=lambda i: -importance[i])
    common = sorted(i for i in frozenset.intersection(*cutting) if low < i < high)
    if not common:
        # For example, groups of 8 beside groups of 12: the overlaps stay in place, and each is sorted within.
        edges = sorted({low, high, *(i for c in cutting for i in c if low < i < high)})
        return [i for a, b in pairwise(edges) for i in _arrange(importance, a, b, [])]
    edges = [low, *common, high]
    pieces = list(pairwise(edges))
    inner = {piece: _arrange(importance, *piece, cutting) for piece in pieces}
    alike: dict[object, list[tuple[int, int]]] = {}
    for a, b in pieces:
        complete = all(a in c and b in c for c in cutting)
        shape = tuple(tuple(sorted(i - a for i in c if a < i < b)) for c in cutting)
        alike.setdefault((b - a, shape) if complete else (a, b), []).append((a, b))
    placed: dict[tuple[int, int], list[int]] = {}
    for same in alike.values():
        best = sorted(same, key=lambda piece: -sum(importance[slice(*piece)]))
        placed |= {place: inner[piece] for place, piece in zip(same, best, strict=True)}
    return [i for piece in pieces for i in placed[piece]]


def head_streams(qkv: nn.Module, out: nn.Module, heads: int) -> list[Stream]:
    """Return the streams inside an attention layer, whose heads stay complete."""
    value = columns_norm(out)
    channels = len(value)
    rows: Tensor = qkv.weight.detach().abs().flatten(1).sum(1)  # type: ignore[operator]
    match = rows[:channels] * rows[channels : 2 * channels]  # a channel of q matters as much as its channel of k
    if heads == 1:  # the order of queries and keys is independent of that of values
        parts = [(match, (0, 1)), (value, (2,))]
    else:
        parts = [(match / match.mean() + value / value.mean(), (0, 1, 2))]
    found = []
    for importance, thirds in parts:
        stream = Stream(channels, importance)
        stream.cut(0, channels // heads)
        for third in thirds:
            stream.places += [(qkv.weight, 0, third * channels), (qkv.bias, 0, third * channels)]  # type: ignore[list-item]
        if 2 in thirds:
            stream.places.append((out.weight, 1, 0))  # type: ignore[arg-type]
        found.append(stream)
    return found


class _Walk:
    """The forward pass of a U-Net, on streams instead of tensors."""

    def __init__(self, network: UNet) -> None:
        self.found: list[Stream] = []
        time = self.new(_out(network.time[0]))
        self.write(network.time[0], time)
        self.read(network.time[2], [time])
        self.time = self.new(_out(network.time[2]))
        self.write(network.time[2], self.time)
        if network.label is not None:
            self.time.places.append((network.label.weight, 1, 0))

        h = self.new(_out(network.head))
        self.write(network.head, h)
        skips = [h]
        for block in network.down:
            h = self.block(block, [h])
            skips.append(h)
        for block in network.middle:
            h = self.block(block, [h])
        for block in network.up:
            h = self.block(block, [h, skips.pop()] if isinstance(block, ResidualBlock) else [h])
        norm = network.tail[0]
        assert isinstance(norm, nn.GroupNorm)
        self.read(network.tail[2], [h], norm)

    def block(self, block: nn.Module, inputs: list[Stream]) -> Stream:
        if not isinstance(block, ResidualBlock):
            assert isinstance(block, Halve | Double)
            self.read(block.conv, inputs)
            h = self.new(_out(block.conv))
            self.write(block.conv, h)
            return h
        self.read(block.conv1, inputs, block.norm1)
        inside = self.new(_out(block.conv1))
        self.write(block.conv1, inside)
        self.write(block.time, inside)
        self.read(block.time, [self.time])
        self.read(block.conv2, [inside], block.norm2)
        if isinstance(block.shortcut, nn.Identity):
            h = inputs[0]
        else:
            self.read(block.shortcut, inputs)
            h = self.new(_out(block.shortcut))
            self.write(block.shortcut, h)
        self.write(block.conv2, h)
        if isinstance(block.attention, Attention):
            self.attention(block.attention, h)
        return h

    def attention(self, attention: Attention, h: Stream) -> None:
        self.read(attention.qkv, [h], attention.norm)
        self.found += head_streams(attention.qkv, attention.out, attention.heads)
        self.write(attention.out, h)

    def new(self, channels: int) -> Stream:
        self.found.append(Stream(channels, torch.zeros(channels)))
        return self.found[-1]

    def write(self, layer: nn.Module, stream: Stream, first: int = 0) -> None:
        stream.places += [(layer.weight, 0, first), (layer.bias, 0, first)]  # type: ignore[list-item]

    def read(self, layer: nn.Module, inputs: list[Stream], norm: nn.GroupNorm | None = None) -> None:
        first = 0
        columns = columns_norm(layer) * (norm.weight.abs() if norm else 1)
        for stream in inputs:
            stream.places.append((layer.weight, 1, first))  # type: ignore[arg-type]
            stream.importance += columns[first : first + stream.channels]
            if norm:
                self.write(norm, stream, first)
                stream.cut(first, norm.num_channels // norm.num_groups)
            first += stream.channels


def _out(layer: nn.Module) -> int:
    return int(layer.weight.shape[0])  # type: ignore[index]


def columns_norm(layer: nn.Module) -> Tensor:
    """Return the L1 norm of the weights that read each input, [C]."""
    weights: Tensor = layer.weight  # type: ignore[assignment]
    return weights.detach().abs().transpose(0, 1).flatten(1).sum(1)
