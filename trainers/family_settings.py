"""Define the settings of single network families: `dit`, the diffusion transformer, and `unet2d_condition`.

The sizes of a transformer's layers at a width follow from its settings.  The published sizes (hidden, depth, heads):
DiT-S 384, 12, 6; B 768, 12, 12; L 1024, 24, 16; XL 1152, 28, 16.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, PositiveInt, model_validator

from stepfront.trainers.validation import Settings

_TOLERANCE = 0.01
"""How far the number of heads at a width may be from a whole number, so that 0.333 of 6 heads is 2."""


class DitSizes(NamedTuple):
    """Channels at one width: of each token, of all heads together, and of the MLP's hidden layer."""

    tokens: int
    heads: int
    attention: int
    mlp: int


class DitSettings(Settings):
    """A transformer on patches (Peebles & Xie 2023, arXiv 2212.09748), for `family: dit`."""

    patch: PositiveInt = Field(2, description="side of a patch, in pixels; it must divide the side of the images")
    hidden: int = Field(64, ge=4, multiple_of=4, description="channels per token, at width 1; a multiple of 4")
    depth: PositiveInt = Field(4, description="number of transformer blocks")
    heads: PositiveInt = Field(4, description="attention heads per block, at width 1; a divisor of `hidden`")
    mlp_ratio: float = Field(4.0, gt=0, description="hidden channels of the MLP, as a multiple of `hidden`")
    slim: Literal["all", "inner"] = Field(
        "all",
        description="what a narrow width keeps less of. all: channels per token, heads and MLP; inner: heads and MLP "
        "alone, which suits pretrained models",
    )
    # Differences of imported networks; `stepfront import` sets these.
    embedders: Literal["shared", "per_block"] = Field(
        "shared", description="embeddings of time and label. shared: one for all blocks; per_block: one per block"
    )
    mlp_norm_eps: float = Field(1e-6, gt=0, description="constant added to the variance in the norms before the MLPs")

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.hidden % self.heads:
            possible = ", ".join(str(n) for n in range(1, min(self.hidden, 64) + 1) if self.hidden % n == 0)
            raise ValueError(f"hidden {self.hidden} can't be divided into {self.heads} heads; possible: {possible}")
        return self

    def check_width(self, width: float) -> None:
        """Raise ValueError when a width leaves part of a head, or none."""
        heads = self.heads * width
        if round(heads) < 1 or abs(heads - round(heads)) > _TOLERANCE:
            near = max(1, round(heads)) / self.heads
            raise ValueError(
                f"width {width:g} of {self.heads} heads (dit.heads) is {heads:g} heads, not a whole number of at "
                f"least 1; the nearest possible width is {near:.3g}"
            )

    def sizes(self, width: float) -> DitSizes:
        """Return the channels of the network of `width`."""
        heads = round(self.heads * width)
        attention = heads * (self.hidden // self.heads)
        tokens = attention if self.slim == "all" else self.hidden
        return DitSizes(tokens, heads, attention, max(1, round(self.mlp_ratio * attention)))


class PromptSettings(Settings):
    """A UNet2DConditionModel of diffusers on fixed prompts, for `family: unet2d_condition`; `classes` counts them.

    `stepfront import diffusers` sets these.
    """

    config: dict[str, Any] = Field({}, description="config.json of the UNet2DConditionModel")
    tokens: PositiveInt = Field(77, description="tokens per prompt, as its text encoder makes them")
