"""Wrap a UNet2DConditionModel of diffusers as a network of one width, on prompts that are encoded once.

A prompt takes the place of a class: label k stands for row k of a table of text encoder outputs, and the label after
the last for the empty prompt.  So labels, guidance and unguided steps work as with classes.  The module is diffusers'
own, so nothing about it is slimmable; its times, solver, guidance and reuse of deep features are.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
from typing import Any

import torch
from torch import Tensor, nn

from stepfront.errors import InputError, first_line
from stepfront.trainers.network_families import text_unet_features
from stepfront.trainers.network_settings import NetworkSettings

_EXTRA_INPUTS = (
    *("addition_embed_type", "class_embed_type", "num_class_embeds", "encoder_hid_dim_type", "encoder_hid_dim"),
    *("time_cond_proj_dim", "center_input_sample"),
)
"""Keys of modules that read something beside image, time and text."""

_SIZES = (
    *("sample_size", "in_channels", "out_channels", "block_out_channels", "layers_per_block", "norm_num_groups"),
    *("down_block_types", "up_block_types", "attention_head_dim", "cross_attention_dim"),
)
"""Keys that are always written into settings."""


def build_unet2d_condition(settings: NetworkSettings, image_channels: int, resolution: int, width: float) -> PromptUNet:
    """Build the module of the settings' config.

    Raises InputError where diffusers is missing, for a config that it does not know, for a module that reads more than
    image, time and text, and for a resolution that its levels do not divide.
    """
    config = settings.unet2d_condition.config
    check_config(config, "network.unet2d_condition.config")
    levels = len(config.get("block_out_channels", (320, 640, 1280, 1280)))
    if resolution % 2 ** (levels - 1):
        step = 2 ** (levels - 1)
        raise InputError(
            f"images of {resolution} pixels can't be halved {levels - 1} times; possible: multiples of {step}"
        )
    return PromptUNet(_build(config), settings.classes or 1, settings.unet2d_condition.tokens)


def plain_config(content: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of a config.json that say what its module is: its sizes, and what differs from the default.

    So files of several versions of diffusers give one network equal settings.  Raises InputError without diffusers.
    """
    defaults = inspect.signature(_module_class().__init__).parameters
    given = {key: value for key, value in content.items() if key in defaults}
    sizes = {key: given.get(key, defaults[key].default) for key in _SIZES}
    others = {key: value for key, value in given.items() if not _equal(value, defaults[key].default)}
    plain: dict[str, Any] = json.loads(json.dumps(sizes | others))
    return plain


def _equal(value: Any, default: Any) -> bool:
    return json.dumps(value) == json.dumps(default)  # a list of the file is a tuple of the signature


def check_config(config: dict[str, Any], where: str) -> None:
    """Raise InputError for the config of a module that reads more than image, time and text; `where` begins it."""
    for key in _EXTRA_INPUTS:
        if config.get(key) not in (None, False):
            raise InputError(
                f"{where}: {key} is {str(config[key])[:60]!r}; possible: null, a network that reads image, time and "
                "text alone"
            )
    into, out = config.get("in_channels", 4), config.get("out_channels", 4)
    if into != out:
        raise InputError(f"{where}: in_channels is {into} and out_channels {out}; possible: as many of both")
    dimension = config.get("cross_attention_dim", 1280)
    if not isinstance(dimension, int):
        raise InputError(f"{where}: cross_attention_dim is {dimension!r}; possible: one number for all blocks")


def _module_class() -> Any:
    if importlib.util.find_spec("diffusers") is None:
        raise InputError(
            "a UNet2DConditionModel needs diffusers, which is not installed: pip install 'diffusers>=0.36'"
        )
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel


def _build(config: dict[str, Any]) -> nn.Module:
    own = _module_class()
    try:
        module: nn.Module = own.from_config(config)
    except Exception as error:  # whatever diffusers raises for a config of another version
        raise InputError(f"diffusers can't build this UNet2DConditionModel: {first_line(error)[:200]}") from None
    return module


class PromptUNet(nn.Module):
    """A module of diffusers, and the text that it reads per label: x [B, C, H, W], t [B], label [B] to noise."""

    def __init__(self, unet: Any, prompts: int, tokens: int) -> None:
        super().__init__()
        self.unet = unet
        self.prompts = nn.Parameter(torch.zeros(prompts + 1, tokens, unet.config.cross_attention_dim))
        self.splits = len(unet.up_blocks) > 1
        for layer in self.modules():
            own = layer.named_parameters(recurse=False)
            layer.segments = {name: tuple((size,) for size in value.shape) for name, value in own}  # type: ignore[assignment]

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the module's output [B, C, H, W]; no label is the empty prompt."""
        output: Tensor = self.unet(x, t, encoder_hidden_states=self._text(x, label), return_dict=False)[0]
        return output

    def with_features(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return what a call returns, and the deep features [B, D, H, W] that the outermost level reads."""
        return text_unet_features.with_features(self.unet, x, t, self._text(x, label))

    def reusing(self, deep: Tensor, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the output of the outermost level on deep features [B, D, H, W] of another call."""
        return text_unet_features.reusing(self.unet, deep, x, t, self._text(x, label))

    def _text(self, x: Tensor, label: Tensor | None) -> Tensor:
        if label is None:
            label = torch.full((len(x),), len(self.prompts) - 1, device=x.device)
        return self.prompts[label].to(x.dtype)
