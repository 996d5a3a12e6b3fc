"""Translate between the tensor names of a UNet2DModel and of stepfront's U-Net."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stepfront.errors import InputError
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.unet import UNet
from stepfront.trainers.networks.unet_blocks import ResidualBlock

LEGACY = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
"""Names of the attention layers before diffusers 0.14, as in the first published models."""


def to_ours(
    network: UNet,
    settings: NetworkSettings,
    theirs: Mapping[str, Tensor],
    cosines_first: bool,
    add_null_class: bool,
    source: Path,
) -> dict[str, Tensor]:
    """Return a UNet2DModel's tensors, by their names since diffusers 0.14, under the names of `network`.

    Raises InputError when a tensor is missing, or when one is left over.
    """
    left = dict(theirs)

    def take(name: str) -> Tensor:
        if name not in left:
            raise InputError(f"{source}: no tensor {name}, which its config requires")
        return left.pop(name)

    ours: dict[str, Tensor] = {}
    for here, there in module_names(network):
        for kind in ("weight", "bias"):
            if here.endswith("attention.qkv"):
                value = torch.cat([take(f"{there}.to_{part}.{kind}") for part in "qkv"])
            else:
                value = take(f"{there}.{kind}")
            if ".attention." in here and value.ndim == 2:
                value = value[:, :, None, None]  # the linear maps of attention are 1x1 convolutions in stepfront
            ours[f"{here}.{kind}"] = value
    if settings.classes is not None:
        classes = take("class_embedding.weight")
        # At zero, the null class adds nothing until a training has dropped labels.
        ours["label.weight"] = nn.functional.pad(classes, (0, 0, 0, 1)) if add_null_class else classes
    if left:
        raise InputError(f"{source}: the tensor {min(left)} belongs to no layer of its config")
    if ours["time.0.weight"].shape[1] == settings.base:
        ours["time.0.weight"] = ours["time.0.weight"][:, time_columns(settings.base, cosines_first).argsort()]
    return ours


def with_modern_names(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under the names that diffusers has given them since 0.14."""
    return {_modern(name): value for name, value in theirs.items()}


def _modern(name: str) -> str:
    if ".attentions." in name:
        for old, new in LEGACY.items():
            name = name.replace(old, new)
    return name


def to_theirs(network: UNet, settings: NetworkSettings, cosines_first: bool) -> dict[str, Tensor]:
    """Return the tensors of a network under a UNet2DModel's names."""
    ours = {name: value.detach() for name, value in network.state_dict().items()}
    ours["time.0.weight"] = ours["time.0.weight"][:, time_columns(settings.base, cosines_first)]
    theirs: dict[str, Tensor] = {}
    for here, there in module_names(network):
        for kind in ("weight", "bias"):
            value = ours[f"{here}.{kind}"]
            if ".attention." in here and value.ndim == 4:
                value = value[:, :, 0, 0]
            if here.endswith("attention.qkv"):
                for part, own in zip("qkv", value.chunk(3), strict=True):
                    theirs[f"{there}.to_{part}.{kind}"] = own
            else:
                theirs[f"{there}.{kind}"] = value
    if network.label is not None:
        theirs["class_embedding.weight"] = ours["label.weight"]
    return theirs


def time_columns(size: int, cosines_first: bool) -> Tensor:
    """Return stepfront's columns, which alternate sines and cosines, in diffusers' order: all of one kind first."""
    sines, cosines = torch.arange(0, size, 2), torch.arange(1, size, 2)
    return torch.cat([cosines, sines] if cosines_first else [sines, cosines])


def module_names(network: UNet) -> Iterator[tuple[str, str]]:
    """Yield the names of each layer in stepfront and in diffusers; query, key and value are one layer here (`qkv`)."""
    yield from (("time.0", "time_embedding.linear_1"), ("time.2", "time_embedding.linear_2"), ("head", "conv_in"))
    yield from _path(network.down, "down")
    yield from _block(network.middle[0], "middle.0", "mid_block", 0)
    yield from _block(network.middle[1], "middle.1", "mid_block", 1)
    yield from _path(network.up, "up")
    yield from (("tail.0", "conv_norm_out"), ("tail.2", "conv_out"))


def _path(blocks: Any, path: str) -> Iterator[tuple[str, str]]:
    level = position = 0
    for i, block in enumerate(blocks):
        there = f"{path}_blocks.{level}"
        if isinstance(block, ResidualBlock):
            yield from _block(block, f"{path}.{i}", there, position)
            position += 1
        else:
            yield f"{path}.{i}.conv", f"{there}.{path}samplers.0.conv"
            level, position = level + 1, 0


def _block(block: Any, here: str, there: str, position: int) -> Iterator[tuple[str, str]]:
    resnet, attention = f"{there}.resnets.{position}", f"{there}.attentions.{position}"
    for own, other in (("norm1", "norm1"), ("conv1", "conv1"), ("time", "time_emb_proj"), ("norm2", "norm2")):
        yield f"{here}.{own}", f"{resnet}.{other}"
    yield f"{here}.conv2", f"{resnet}.conv2"
    if not isinstance(block.shortcut, nn.Identity):
        yield f"{here}.shortcut", f"{resnet}.conv_shortcut"
    if not isinstance(block.attention, nn.Identity):
        yield f"{here}.attention.norm", f"{attention}.group_norm"
        yield f"{here}.attention.qkv", attention
        yield f"{here}.attention.out", f"{attention}.to_out.0"
