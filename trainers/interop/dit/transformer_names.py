"""Translate between the tensors of a DiTTransformer2DModel and of stepfront's transformer.

The channels of tokens are in another order: sines and cosines of columns and rows alternate here, so that a prefix of
them knows both, and stand one after the other there.  Every layer that reads or writes tokens is permuted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.interop.unet2d_names import time_columns
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.dit import TIME_CHANNELS

HEAD, TAIL = "pos_embed.proj", "proj_out_2"
KINDS = ("weight", "bias")


def to_ours(
    theirs: Mapping[str, Tensor], settings: NetworkSettings, image_channels: int, source: Path
) -> dict[str, Tensor]:
    """Return a DiTTransformer2DModel's tensors under stepfront's names; channels of learnt variances are left out.

    Raises InputError when a tensor is missing, or when one is left over.
    """
    own, left = settings.dit, dict(theirs)
    order = _token_order(own.hidden)

    def take(name: str) -> Tensor:
        if name not in left:
            raise InputError(f"{source}: no tensor {name}, which its config requires")
        return left.pop(name)

    ours: dict[str, Tensor] = {}
    for here, there, written in _layers(own.depth):
        for kind in KINDS:
            value = torch.cat([take(f"{name}.{kind}") for name in there])
            if here == "head":
                value = value.flatten(1) if kind == "weight" else value
            if here == "tail":
                value = value.unflatten(0, (own.patch**2, -1))[:, :image_channels].flatten(0, 1)
            ours[f"{here}.{kind}"] = _reordered(value, written, order)
    columns = time_columns(TIME_CHANNELS, cosines_first=True).argsort()
    for here, there_ in _embedder_names():
        for i in range(own.depth):
            value = take(f"transformer_blocks.{i}.norm1.emb.{there_}")
            if i < _embedders(settings):
                ours[f"embedders.{i}.{here}"] = value[:, columns] if here == "time.0.weight" else value
    if left:
        raise InputError(f"{source}: the tensor {min(left)} belongs to no layer of its config")
    return ours


def to_theirs(ours: Mapping[str, Tensor], settings: NetworkSettings, image_channels: int) -> dict[str, Tensor]:
    """Return the tensors of a network at full width under a DiTTransformer2DModel's names."""
    own = settings.dit
    order = _token_order(own.hidden).argsort()
    theirs: dict[str, Tensor] = {}
    for here, there, written in _layers(own.depth):
        for kind in KINDS:
            value = _reordered(ours[f"{here}.{kind}"], written, order)
            for name, part in zip(there, value.chunk(len(there)), strict=True):
                theirs[f"{name}.{kind}"] = part.contiguous()
    theirs[f"{HEAD}.weight"] = theirs[f"{HEAD}.weight"].unflatten(1, (image_channels, own.patch, own.patch))
    columns = time_columns(TIME_CHANNELS, cosines_first=True)
    for here, there_ in _embedder_names():
        for i in range(own.depth):
            value = ours[f"embedders.{min(i, _embedders(settings) - 1)}.{here}"]
            value = value[:, columns] if here == "time.0.weight" else value
            theirs[f"transformer_blocks.{i}.norm1.emb.{there_}"] = value.clone()  # each block has its own
    return theirs


def _layers(depth: int) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """Yield each layer's name here, names there, and how often its outputs are the channels of tokens.

    Layers that do not write tokens read them.  Query, key and value are one layer here.
    """
    yield "head", (HEAD,), 1
    for i in range(depth):
        here, there = f"blocks.{i}", f"transformer_blocks.{i}"
        yield f"{here}.modulation", (f"{there}.norm1.linear",), 6
        yield f"{here}.qkv", tuple(f"{there}.attn1.to_{part}" for part in "qkv"), 0
        yield f"{here}.out", (f"{there}.attn1.to_out.0",), 1
        yield f"{here}.mlp.0", (f"{there}.ff.net.0.proj",), 0
        yield f"{here}.mlp.2", (f"{there}.ff.net.2",), 1
    yield "modulation", ("proj_out_1",), 2
    yield "tail", (TAIL,), 0


def _embedders(settings: NetworkSettings) -> int:
    return settings.dit.depth if settings.dit.embedders == "per_block" else 1


def _embedder_names() -> Iterator[tuple[str, str]]:
    """Yield the names of an embedder's tensors, here and there."""
    for here, there in (("time.0", "timestep_embedder.linear_1"), ("time.2", "timestep_embedder.linear_2")):
        for kind in KINDS:
            yield f"{here}.{kind}", f"{there}.{kind}"
    yield "label.weight", "class_embedder.embedding_table.weight"


def _token_order(hidden: int) -> Tensor:
    """Return where each channel of tokens is in a DiTTransformer2DModel, [hidden]."""
    return torch.arange(hidden).view(4, hidden // 4).T.flatten()


def _reordered(value: Tensor, written: int, order: Tensor) -> Tensor:
    """Return a layer's weights or biases with the channels of tokens in another order."""
    if written:
        return value.unflatten(0, (written, -1))[:, order].flatten(0, 1)
    return value[:, order] if value.ndim == 2 else value
