"""Define the settings of a second training: groups of times, and what becomes of their weights."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from stepfront.trainers.validation import Settings


class GroupSettings(Settings):
    """How the training times are divided into groups."""

    count: int = Field(4, ge=2, description="number of groups")
    by: Literal["snr", "loss", "times"] = Field(
        "snr",
        description="what the groups have equal parts of. snr: the range of the log signal-to-noise ratio; loss: the "
        "loss of full width, summed over its times; times: the training times",
    )


class AdaptSettings(Settings):
    """The second training of `stepfront adapt` (Step-Adaptive Training, arXiv 2312.13307; docs/adapt.md).

    What is not here is as in `training`.
    """

    groups: GroupSettings = GroupSettings()
    steps: int = Field(500, ge=1, description="training steps per group")
    lr: float = Field(1e-4, gt=0, description="learning rate of a group's training after the warm-up")
    warmup: int = Field(20, ge=0, description="steps of linear warm-up per group")
    other_times: float = Field(0.0, ge=0, le=1, description="share of a group's images whose times are of any group")
    sort: Literal["none", "shared", "groups"] = Field(
        "none",
        description="order of channels before the training, the most important first: groups: by the importance for "
        "each group's times; shared: for all times; none: as they are. Narrow widths lose what they have learnt",
    )
    sort_batches: int = Field(16, ge=1, description="batches over which the importance of channels is summed")
    merge: bool = Field(
        False,
        description="whether the groups become one supernet, a weighted sum of what they have learnt (DeMe), in place "
        "of a supernet with weights per group",
    )
    weights: Literal["float32", "bfloat16"] = Field(
        "float32", description="number format of the file of a supernet with weights per group"
    )

    @model_validator(mode="after")
    def _merge_needs_one_order(self) -> Self:
        if self.merge and self.sort == "groups":
            raise ValueError(
                "adapt.merge adds weights of equal places, and adapt.sort: groups moves channels to other places in "
                "each group; set adapt.sort to shared or none"
            )
        return self
