"""Define the settings of a slimmable network, and those that single families have for themselves.

The sizes of a transformer's layers at a width follow from its settings.  The published sizes (hidden, depth, heads):
DiT-S 384, 12, 6; B 768, 12, 12; L 1024, 24, 16; XL 1152, 28, 16.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, PositiveInt, field_validator, model_validator

from stepfront.plugins import FAMILIES
from stepfront.trainers.validation import Settings
from stepfront.trainers.variant import Size

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


_UNET_ALONE = (
    *("base", "multipliers", "blocks", "attention", "dropout", "groups", "group_channels", "skips", "norm_eps"),
    *("head_channels", "halving"),
)
"""Settings of U-Nets that are built here."""

PROMPTED = "unet2d_condition"
"""The family whose classes are prompts."""

_NO_UNETS = ("dit", PROMPTED)
"""Families that do not have the settings of a U-Net."""

_OWNERS = {"dit": "dit", PROMPTED: PROMPTED, "inner_steps": "ode"}
"""Settings that one family alone has, and that family."""


class NetworkSettings(Settings):
    """A slimmable network and the widths at which it can run.  docs/networks.md describes the families."""

    family: Annotated[str, AfterValidator(FAMILIES.check)] = Field(
        "unet",
        description=f"network family (docs/networks.md): {', '.join(FAMILIES.ours)}, or your own (docs/plugins.md)",
    )
    base: int = Field(32, ge=4, description="channels at the first resolution, at width 1")
    multipliers: tuple[PositiveInt, ...] = Field(
        (1, 2), min_length=1, description="channels per resolution, as multiples of `base`"
    )
    blocks: int = Field(1, ge=1, description="residual blocks per resolution")
    attention: tuple[PositiveInt, ...] = Field((), description="resolutions, in pixels, that have self-attention")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout probability in training")
    groups: int = Field(32, ge=1, description="maximum number of groups per group norm")
    group_channels: int = Field(4, ge=1, description="minimum number of channels per group")
    widths: tuple[float, ...] = Field(
        (0.25, 0.5, 0.75, 1.0),
        description="widths of the supernet, ascending, as multiples of the channels; the last is 1",
    )
    classes: PositiveInt | None = Field(
        None, description="number of classes of a class-conditional network; null: unconditional"
    )
    skips: Literal["segment", "prefix"] = Field(
        "segment",
        description="how a narrow width slices a concatenated skip. segment: each part by itself; prefix: the "
        "concatenation, as DDSM does",
    )
    # Differences of imported networks; `stepfront import` sets these.
    norm_eps: float = Field(1e-5, gt=0, description="constant added to the variance in group norms")
    head_channels: PositiveInt | None = Field(None, description="channels per attention head; null: one head")
    halving: Literal["centred", "end"] = Field(
        "centred", description="zero padding of strided convolutions. centred: on both sides; end: at the end only"
    )
    frequencies: Literal["plain", "ddsm", "diffusers", "diffusers_shifted"] = Field(
        "plain",
        description="time embedding that is reproduced to the last bit; diffusers_shifted has freq_shift 1",
    )
    inner_steps: int = Field(2, ge=1, le=64, description="solver steps per block of family ode, which share weights")
    depths: tuple[PositiveInt, ...] = Field(
        (),
        description="depths of the supernet, ascending, such as [1, 2, 4]: inner steps of family ode, or blocks of "
        "family dit, of which the first are kept. The last is the full depth, `inner_steps` or `dit.depth`; []: that "
        "one alone",
    )
    dit: DitSettings = DitSettings()
    unet2d_condition: PromptSettings = PromptSettings()

    @property
    def image_classes(self) -> int | None:
        """Number of classes of the images' labels; None: they need no labels, as where prompts are the classes."""
        return None if self.family == PROMPTED else self.classes

    @property
    def full_depth(self) -> int | None:
        """The depth of the complete network; None for families without one."""
        return {"ode": self.inner_steps, "dit": self.dit.depth}.get(self.family)

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Widths and depths at which the network runs: the narrowest and shallowest first, the complete one last."""
        return tuple(Size(width, depth) for width in self.widths for depth in (*self.depths[:-1], None))

    def at_depth(self, depth: int | None) -> NetworkSettings:
        """Return the settings of the network of one depth alone; None is the full one."""
        if depth is None or self.family == "ode":
            return self.model_copy(update={"depths": (), "inner_steps": depth or self.inner_steps})
        # The first blocks, as in Once-for-All (arXiv 1908.09791): then a depth is a prefix of the weights.
        return self.model_copy(update={"depths": (), "dit": self.dit.model_copy(update={"depth": depth})})

    @field_validator("widths")
    @classmethod
    def _ascending_to_one(cls, widths: tuple[float, ...]) -> tuple[float, ...]:
        if not widths or widths[-1] != 1.0 or list(widths) != sorted(set(widths)) or widths[0] <= 0:
            raise ValueError("widths must ascend within (0, 1] and end in 1.0, such as [0.25, 0.5, 0.75, 1.0]")
        return widths

    @model_validator(mode="after")
    def _of_the_family(self) -> Self:
        """Refuse settings of another family: they would have no effect."""
        if self.family not in FAMILIES.ours:
            return self
        owners = _OWNERS | (dict.fromkeys(_UNET_ALONE, "") if self.family in _NO_UNETS else {})
        defaults = type(self).model_fields
        foreign = {name: owner for name, owner in owners.items() if owner != self.family}
        given = [name for name in foreign if getattr(self, name) != defaults[name].get_default()]
        if given:
            families = " or ".join(dict.fromkeys(foreign[name] for name in given if foreign[name]))
            own = f"they are for family {families}" if families else f"its own are in network.{self.family}"
            names = ", ".join(f"network.{name}" for name in given)
            raise ValueError(f"family {self.family} does not have the settings {names}; {own}")
        return self

    @model_validator(mode="after")
    def _depths_of_the_family(self) -> Self:
        depths, full = self.depths, self.full_depth
        if depths and full is None:
            raise ValueError(f"family {self.family} has one depth; network.depths is for families ode and dit")
        if depths and (depths[-1] != full or list(depths) != sorted(set(depths))):
            key = "inner_steps" if self.family == "ode" else "dit.depth"
            example = [1, full] if full != 1 else [1]
            raise ValueError(
                f"depths must ascend and end in network.{key}, {full}, such as {example}; given: {list(depths)}"
            )
        if len(depths) == 1:  # the full one alone: the same network as without the setting, so of the same identity
            object.__setattr__(self, "depths", ())
        return self

    @model_validator(mode="after")
    def _whole_channels(self) -> Self:
        if self.family == "dit":
            for width in self.widths:
                self.dit.check_width(width)
            return self
        if self.family == PROMPTED and self.widths != (1.0,):
            raise ValueError(f"family {PROMPTED} is not slimmable: its one width is 1; give widths: [1.0]")
        for width in self.widths:
            channels = round(self.base * width, 6)  # in floats 100 x 0.55 is not quite 55
            if channels % 1 or channels < 2:
                possible = [n / self.base for n in range(2, self.base + 1)]
                near = min(possible, key=lambda w: abs(w - width))
                raise ValueError(
                    f"width {width} of base {self.base} is {channels:g} channels, not a whole number of "
                    f"at least 2; the nearest possible width is {near:g}"
                )
        return self
