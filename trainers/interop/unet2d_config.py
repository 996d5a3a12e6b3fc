"""Read and write a UNet2DModel's config.json, and refuse what stepfront's U-Net can't express."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, PositiveInt

from stepfront.errors import InputError
from stepfront.files import read_json
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.unet import UNet
from stepfront.trainers.validation import Settings, validate

NullClass = Literal["last", "none"]
"""Whether the last of a UNet2DModel's classes is the null class, which stands for no class."""

OF_AVERAGES = frozenset(
    ("decay", "min_decay", "optimization_step", "update_after_step", "use_ema_warmup", "inv_gamma", "power")
)
"""Keys that diffusers' EMAModel writes into the config of an averaged network; they do not concern the network."""


class UNet2DConfig(Settings):
    """The keys of config.json with diffusers' defaults, and the values that stepfront's U-Net can express."""

    sample_size: int | tuple[int, int] | None = None
    in_channels: PositiveInt = 3
    out_channels: PositiveInt = 3
    time_embedding_dim: int | None = None
    freq_shift: int = Field(0, ge=0, le=1)
    flip_sin_to_cos: bool = True
    down_block_types: tuple[Literal["DownBlock2D", "AttnDownBlock2D"], ...] = (
        "DownBlock2D",
        *("AttnDownBlock2D",) * 3,
    )
    up_block_types: tuple[Literal["UpBlock2D", "AttnUpBlock2D"], ...] = (*("AttnUpBlock2D",) * 3, "UpBlock2D")
    block_out_channels: tuple[PositiveInt, ...] = Field((224, 448, 672, 896), min_length=1)
    layers_per_block: PositiveInt = 2
    downsample_padding: int = Field(1, ge=0, le=1)
    dropout: float = 0.0
    attention_head_dim: PositiveInt | None = 8
    norm_num_groups: PositiveInt = 32
    norm_eps: float = 1e-5
    act_fn: Literal["silu", "swish"] = "silu"
    num_train_timesteps: int | None = Field(None, description="of the learned time embedding alone, so of no effect")
    # Keys of which stepfront's U-Net has one form.
    center_input_sample: Literal[False] = False
    time_embedding_type: Literal["positional"] = "positional"
    mid_block_type: Literal["UNetMidBlock2D"] = "UNetMidBlock2D"
    mid_block_scale_factor: float = Field(1, ge=1, le=1)
    downsample_type: Literal["conv"] = "conv"
    upsample_type: Literal["conv"] = "conv"
    attn_norm_num_groups: None = None
    resnet_time_scale_shift: Literal["default"] = "default"
    add_attention: Literal[True] = True
    class_embed_type: None = None
    num_class_embeds: PositiveInt | None = None

    @property
    def attend(self) -> list[bool]:
        """Whether each level has attention, from the finest to the coarsest."""
        return [name.startswith("Attn") for name in self.down_block_types]


def read_config(path: Path) -> UNet2DConfig:
    """Return the config of a UNet2DModel; raises InputError for what stepfront's U-Net can't express."""
    content = read_json(path, "UNet2DModel config")
    name = content.get("_class_name", "UNet2DModel" if "down_block_types" in content else "model of unknown class")
    if name != "UNet2DModel":
        raise InputError(f"{path} is the config of a {name}; only UNet2DModel can be imported")
    known = UNet2DConfig.model_fields
    left_out = {key for key, value in content.items() if key.startswith("_") or key in OF_AVERAGES}
    given = {k: v for k, v in content.items() if k not in left_out and (k in known or v is not None)}
    try:
        config = validate(UNet2DConfig, given)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    _check(config, path)
    return config


def _check(config: UNet2DConfig, path: Path) -> None:
    channels, base, groups = config.block_out_channels, config.block_out_channels[0], config.norm_num_groups
    mirrored = [name.startswith("Attn") for name in reversed(config.up_block_types)]
    multiples = all(c % base == 0 for c in channels) and len(channels) == len(config.attend) and base % 2 == 0
    checks = {
        "block_out_channels": (
            multiples,
            "multiples of the first, which is even, one for each of down_block_types",
        ),
        "up_block_types": (mirrored == config.attend, "attention where the reversed down_block_types have it"),
        "time_embedding_dim": (config.time_embedding_dim in (None, 4 * base), f"null and {4 * base}"),
        "norm_num_groups": (all(c % groups == 0 for c in channels), "divisors of all block_out_channels"),
        "out_channels": (config.out_channels == config.in_channels, f"as many as in_channels, {config.in_channels}"),
    }
    for key, (expressible, possible) in checks.items():
        if not expressible:
            raise InputError(f"{path}: {key} is {getattr(config, key)!r}; possible: {possible}")


def deduce_settings(
    config: UNet2DConfig, widths: tuple[float, ...], resolution: int, null_class: NullClass | None, path: Path
) -> NetworkSettings:
    """Return the network settings that equal a UNet2DModel's config.

    Raises InputError when `null_class` is missing although there are classes, or given although there are none.
    """
    embeds = config.num_class_embeds
    if embeds is None and null_class is not None:
        raise InputError(f"{path}: a null class ({null_class!r}) needs num_class_embeds, and there is none; omit it")
    if embeds is not None and null_class is None:
        raise InputError(
            f"{path}: num_class_embeds is {embeds}, and no file tells whether the last of them is a null class, "
            "trained for guidance; give --null-class last or --null-class none"
        )
    channels, base = config.block_out_channels, config.block_out_channels[0]
    given = {
        "base": base,
        "multipliers": [c // base for c in channels],
        "blocks": config.layers_per_block,
        "attention": [resolution >> level for level, attend in enumerate(config.attend) if attend],
        "dropout": config.dropout,
        "groups": config.norm_num_groups,
        "group_channels": min(channels) // config.norm_num_groups,
        "widths": widths,
        "norm_eps": config.norm_eps,
        "head_channels": config.attention_head_dim,
        "halving": "centred" if config.downsample_padding else "end",
        "frequencies": "diffusers_shifted" if config.freq_shift else "diffusers",
        "classes": embeds and embeds - (null_class == "last"),
    }
    try:
        return validate(NetworkSettings, given)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def config_of(network: UNet, settings: NetworkSettings, image_channels: int, resolution: int) -> dict[str, Any]:
    """Return the config.json of a network at full width, in which the null class is one more class.

    Raises InputError when its norms differ in their groups.
    """
    groups = sorted({m.num_groups for m in network.modules() if isinstance(m, torch.nn.GroupNorm)})
    if len(groups) > 1:
        raise InputError(
            f"the group norms of this network have {', '.join(map(str, groups))} groups; a UNet2DModel has one number "
            "for all, so it can't be exported as one; train with network.groups that divide every layer's channels"
        )
    attend = [resolution >> level in settings.attention for level in range(len(settings.multipliers))]
    config = UNet2DConfig(
        sample_size=resolution,
        in_channels=image_channels,
        out_channels=image_channels,
        freq_shift=int(settings.frequencies == "diffusers_shifted"),
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attend),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attend)),
        block_out_channels=tuple(settings.base * multiplier for multiplier in settings.multipliers),
        layers_per_block=settings.blocks,
        downsample_padding=int(settings.halving == "centred"),
        dropout=settings.dropout,
        attention_head_dim=settings.head_channels,
        norm_num_groups=groups[0],
        norm_eps=settings.norm_eps,
        num_class_embeds=None if network.label is None else network.label.num_embeddings,
    )
    return {"_class_name": "UNet2DModel"} | config.model_dump(mode="json")
