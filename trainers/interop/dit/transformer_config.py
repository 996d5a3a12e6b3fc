"""Read and write a DiTTransformer2DModel's config.json, and refuse what stepfront's transformer can't express."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt
from torch import Tensor

from stepfront.errors import InputError
from stepfront.files import read_json
from stepfront.trainers.interop.diffusers_folder import DIT_CLASSES
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.validation import Settings, validate

Slim = Literal["all", "inner"]


class TransformerConfig(Settings):
    """The keys of config.json with diffusers' defaults, and the values that stepfront's transformer can express."""

    num_attention_heads: PositiveInt = 16
    attention_head_dim: PositiveInt = 72
    in_channels: PositiveInt = 4
    out_channels: PositiveInt | None = None
    num_layers: PositiveInt = 28
    sample_size: PositiveInt = 32
    patch_size: PositiveInt = 2
    num_embeds_ada_norm: PositiveInt = 1000
    norm_eps: float = Field(1e-5, gt=0)
    norm_num_groups: int = Field(32, description="of no effect: there are no group norms")
    upcast_attention: bool = Field(False, description="of no effect in float32")
    # Keys of which stepfront's transformer has one form.
    norm_type: Literal["ada_norm_zero"] = "ada_norm_zero"
    norm_elementwise_affine: Literal[False] = False
    activation_fn: Literal["gelu-approximate"] = "gelu-approximate"
    attention_bias: Literal[True] = True
    dropout: float = Field(0.0, ge=0, le=0)

    @property
    def hidden(self) -> int:
        """Channels of each token."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def predicted_channels(self) -> int:
        """Channels of the output: as many as the input has, or twice as many with learnt variances."""
        return self.out_channels or self.in_channels


def read_config(path: Path) -> TransformerConfig:
    """Return the config of a DiT; raises InputError for what stepfront's transformer can't express."""
    content = read_json(path, "transformer's config")
    name = content.get("_class_name")
    if name not in DIT_CLASSES:
        raise InputError(f"{path} is the config of a {name}; possible: {', '.join(sorted(DIT_CLASSES))}")
    known = TransformerConfig.model_fields
    # A key of another kind of transformer, such as cross_attention_dim, is without effect where it is off.
    off = (None, False, "default")
    given = {k: v for k, v in content.items() if not k.startswith("_") and (k in known or v not in off)}
    try:
        config = validate(TransformerConfig, given)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if config.predicted_channels not in (config.in_channels, 2 * config.in_channels):
        raise InputError(
            f"{path}: out_channels is {config.out_channels}; possible: {config.in_channels}, as many as in_channels, "
            f"or {2 * config.in_channels} with learnt variances"
        )
    return config


def deduce_settings(
    config: TransformerConfig, theirs: Mapping[str, Tensor], widths: tuple[float, ...], slim: Slim, path: Path
) -> NetworkSettings:
    """Return the network settings that equal a transformer's config and tensors."""
    given = {
        "family": "dit",
        "widths": widths,
        "classes": config.num_embeds_ada_norm,
        "frequencies": "diffusers_shifted",
        "dit": {
            "patch": config.patch_size,
            "hidden": config.hidden,
            "depth": config.num_layers,
            "heads": config.num_attention_heads,
            "slim": slim,
            "embedders": "shared" if _blocks_share_embedders(theirs) else "per_block",
            "mlp_norm_eps": config.norm_eps,
        },
    }
    try:
        return validate(NetworkSettings, given)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _blocks_share_embedders(theirs: Mapping[str, Tensor]) -> bool:
    """Whether all blocks embed times and labels alike, as in models that were converted from the paper's own."""
    first = "transformer_blocks.0."
    return all(
        value.equal(theirs.get(first + name.split(".", 2)[2], value.new_empty(0)))
        for name, value in theirs.items()
        if name.startswith("transformer_blocks.") and ".norm1.emb." in name
    )


def config_of(settings: NetworkSettings, image_channels: int, resolution: int) -> dict[str, Any]:
    """Return the config.json of a transformer at full width.

    Raises InputError for what a DiTTransformer2DModel does not have.
    """
    own = settings.dit
    if settings.family != "dit":
        possible = "--as unet2d or pipeline" if settings.family == "unet" else "--as torch-export"
        raise InputError(
            f"a network of family {settings.family} can't be a DiTTransformer2DModel; possible for it: {possible}"
        )
    refused = {
        "network.classes": (settings.classes is None, "a number of classes, which it always has"),
        "network.frequencies": (settings.frequencies != "diffusers_shifted", "diffusers_shifted"),
        "network.dit.mlp_ratio": (own.mlp_ratio != 4, "4"),
    }
    for key, (is_other, possible) in refused.items():
        if is_other:
            raise InputError(f"this network can't be a DiTTransformer2DModel, which needs {key}: {possible}")
    config = TransformerConfig(
        num_attention_heads=own.heads,
        attention_head_dim=own.hidden // own.heads,
        in_channels=image_channels,
        out_channels=image_channels,
        num_layers=own.depth,
        sample_size=resolution,
        patch_size=own.patch,
        num_embeds_ada_norm=settings.classes or 1,
        norm_eps=own.mlp_norm_eps,
    )
    return {"_class_name": "DiTTransformer2DModel"} | config.model_dump(mode="json")
