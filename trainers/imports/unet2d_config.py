"""A UNet2DModel's config.json: what of it our U-Net can be equal to, read, refused and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from trainers.backbones.unet import UNet
from trainers.config import DiffusionSettings, NetworkSettings, validate
from trainers.errors import InputError
from trainers.files import read_json

FIXED: dict[str, Any] = {
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "mid_block_type": "UNetMidBlock2D",
    "mid_block_scale_factor": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "act_fn": "silu",
    "attn_norm_num_groups": None,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": None,
}
"""Keys of config.json, and the only value that our U-Net can express; it is diffusers' default, too."""

FREE: dict[str, Any] = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [224, 448, 672, 896],
    "layers_per_block": 2,
    "downsample_padding": 1,
    "dropout": 0.0,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "num_train_timesteps": None,  # read by the learned time embedding alone
}
"""Keys that may vary, and diffusers' defaults."""


def read_config(path: Path) -> dict[str, Any]:
    """The settings of a UNet2DModel, diffusers' defaults where it is silent.

    Raises InputError for what our U-Net can't express.
    """
    content = read_json(path, "UNet2DModel config")
    given = {key: value for key, value in content.items() if not key.startswith("_")}
    name = content.get("_class_name", "UNet2DModel")
    if name != "UNet2DModel":
        raise InputError(f"{path} is of a {name}; only UNet2DModel can be imported")
    for key, value in given.items():
        if key in FIXED and value != FIXED[key] and (key, value) != ("act_fn", "swish"):
            raise InputError(f"{path}: {key} is {value!r}; stepfront's U-Net can express {FIXED[key]!r} alone")
        if key not in FIXED and key not in FREE and value is not None:
            raise InputError(f"{path}: {key} is {value!r}, which stepfront's U-Net does not know")
    return FREE | {key: value for key, value in given.items() if key in FREE}


def deduce_settings(
    config: Mapping[str, Any], widths: tuple[float, ...], resolution: int, path: Path
) -> NetworkSettings:
    """The network settings that a UNet2DModel's config amounts to."""
    channels = config["block_out_channels"]
    base, levels, groups = channels[0], len(channels), config["norm_num_groups"]
    attend = [name.startswith("Attn") for name in config["down_block_types"]]
    expected = (
        ["AttnDownBlock2D" if a else "DownBlock2D" for a in attend],
        ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attend)],
    )
    checks = {
        "block_out_channels": all(c % base == 0 for c in channels) and len(attend) == levels,
        "down_block_types": list(config["down_block_types"]) == expected[0],
        "up_block_types": list(config["up_block_types"]) == expected[1],
        "time_embedding_dim": config["time_embedding_dim"] in (None, 4 * base),
        "freq_shift": config["freq_shift"] in (0, 1),
        "downsample_padding": config["downsample_padding"] in (0, 1),
        "norm_num_groups": isinstance(groups, int) and all(c % groups == 0 for c in channels),
        "out_channels": config["out_channels"] == config["in_channels"],
    }
    possible = {
        "block_out_channels": "multiples of the first, one for each of down_block_types",
        "down_block_types": "DownBlock2D and AttnDownBlock2D",
        "up_block_types": "UpBlock2D and AttnUpBlock2D, mirroring down_block_types",
        "time_embedding_dim": f"null or {4 * base}",
        "norm_num_groups": "a divisor of all block_out_channels",
        "out_channels": f"as many as in_channels, {config['in_channels']}",
    }
    for key, expressible in checks.items():
        if not expressible:
            raise InputError(f"{path}: {key} is {config[key]!r}; possible are {possible.get(key, '0 and 1')}")
    given = {
        "base": base,
        "multipliers": [c // base for c in channels],
        "blocks": config["layers_per_block"],
        "attention": [resolution >> level for level in range(levels) if attend[level]],
        "dropout": float(config["dropout"]),
        "groups": groups,
        "group_channels": max(1, min(channels) // groups),
        "widths": widths,
        "norm_eps": config["norm_eps"],
        "head_channels": config["attention_head_dim"],
        "halving": "centred" if config["downsample_padding"] else "end",
        "frequencies": "diffusers_shifted" if config["freq_shift"] else "diffusers",
    }
    try:
        return validate(NetworkSettings, given)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def read_schedule(path: Path) -> DiffusionSettings:
    """The noise of a pipeline's scheduler.  InputError where it is no schedule of ours, or the network predicts
    something else than noise."""
    config = read_json(path, "scheduler config")
    kinds = {"linear": "linear", "squaredcos_cap_v2": "cosine"}
    if config.get("prediction_type", "epsilon") != "epsilon":
        raise InputError(f"{path}: the network predicts {config['prediction_type']!r}; possible: 'epsilon'")
    if config.get("beta_schedule", "linear") not in kinds or config.get("trained_betas") is not None:
        raise InputError(f"{path}: beta_schedule is {config.get('beta_schedule')!r}; possible: {', '.join(kinds)}")
    given = {
        "schedule": kinds[config.get("beta_schedule", "linear")],
        "steps": config.get("num_train_timesteps", 1000),
        "beta_first": config.get("beta_start", 1e-4),
        "beta_last": config.get("beta_end", 0.02),
    }
    return validate(DiffusionSettings, given)


def config_of(network: UNet, settings: NetworkSettings, image_channels: int, resolution: int) -> dict[str, Any]:
    """The config.json of a network at full width.  InputError when its norms differ in their groups."""
    groups = sorted({m.num_groups for m in network.modules() if isinstance(m, torch.nn.GroupNorm)})
    if len(groups) > 1:
        raise InputError(
            f"the group norms of this network have {', '.join(map(str, groups))} groups; a UNet2DModel has one number "
            "for all, so it can't be written as one (train with network.groups that divide every layer's channels)"
        )
    attend = [resolution >> level in settings.attention for level in range(len(settings.multipliers))]
    down = ["AttnDownBlock2D" if a else "DownBlock2D" for a in attend]
    up = ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attend)]
    return {
        "_class_name": "UNet2DModel",
        **FIXED,
        **FREE,
        "sample_size": resolution,
        "in_channels": image_channels,
        "out_channels": image_channels,
        "freq_shift": int(settings.frequencies == "diffusers_shifted"),
        "down_block_types": down,
        "up_block_types": up,
        "block_out_channels": [settings.base * multiplier for multiplier in settings.multipliers],
        "layers_per_block": settings.blocks,
        "downsample_padding": 0 if settings.halving == "end" else 1,
        "dropout": settings.dropout,
        "attention_head_dim": settings.head_channels,
        "norm_num_groups": groups[0],
        "norm_eps": settings.norm_eps,
    }
