"""Define the settings of a training, and of a second training for groups of times."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from stepfront.trainers.validation import Settings

LARGEST_SEED = 2**32 - 1
"""scikit-learn takes no larger one, and sums of seeds must fit into the tables' 64 bits."""

TrainingEngine = Literal["plain", "channels_last", "compiled", "cuda_graphs", "compiled_cuda_graphs"]
"""How a training runs its networks; see `trainers/inference/engine.py`."""


class TrainingSettings(Settings):
    """Training of all widths, by the sandwich rule (Yu & Huang 2019) or with one random width per step."""

    start: str | None = Field(
        None, description="folder of a supernet whose weights the training begins with; null: random weights"
    )
    steps: int = Field(2000, ge=1, description="number of training steps")
    batch: int = Field(128, ge=1, description="images per step, over all training workers")
    lr: float = Field(4e-4, gt=0, description="learning rate after the warm-up")
    warmup: int = Field(100, ge=0, description="steps of linear warm-up")
    decay: bool = Field(True, description="whether the learning rate decays to zero after the warm-up, as a cosine")
    clip: float = Field(1.0, gt=0, description="maximum norm of the summed gradient")
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the moving average of the weights; 0: no average")
    rule: Literal["sandwich", "single"] = Field(
        "sandwich",
        description="widths of a step. sandwich: the widest, the narrowest and a random one; single: one random width "
        "(OFA-Diffusion), so a step costs about a third",
    )
    narrowest_share: float = Field(
        3.0,
        gt=0,
        description="how many times as often rule single draws the narrowest width as the widest; in between the "
        "probability is linear in the order of the widths",
    )
    width_weights: tuple[float, ...] | None = Field(
        None, description="factor of the loss per width, in the order of `network.widths`; null: 1 for each"
    )
    loss_weight: Literal["none", "min_snr", "p2"] = Field(
        "none",
        description="weight of the loss per time. none: the mean squared error of what the network predicts; min_snr: "
        "min(SNR, 5) / SNR of the noise's error (Hang et al. 2023); p2: 1 / (1 + SNR) of it (Choi et al. 2022)",
    )
    times: tuple[int, int] | None = Field(
        None, description="first and last training time that are drawn, such as [0, 301]; null: all (docs/adapt.md)"
    )
    other_times: float = Field(
        0.0, ge=0, le=1, description="share of the images whose times are drawn from all, where `times` names some"
    )
    distill: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the teacher's output in the targets: the widest network teaches the narrower widths, or "
        "`teacher` all",
    )
    distill_spectrum: float = Field(
        0.0,
        ge=0,
        description="weight of the distance to the teacher's output over frequencies, each weighted by the inverse of "
        "the images' mean amplitude (docs/networks.md); 0.1 in Spectral Diffusion",
    )
    teacher: str | None = Field(
        None,
        description="folder of a supernet whose full width is the teacher of `distill` and `distill_spectrum`; null: "
        "the widest network",
    )
    drop_labels: float = Field(
        0.1, ge=0, lt=1, description="share of labels replaced by the null class, which guidance needs"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="number format of forward and backward passes. auto: bfloat16 on a GPU, else float32"
    )
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    checkpoints: str | None = Field(
        None, description="URI to which checkpoints are also written, such as s3://bucket/checkpoints; null: none"
    )
    samples_every: int = Field(1, ge=0, description="checkpoints between two grids of samples; 0: no grids")
    held_out_images: int = Field(256, ge=1, description="held-out images per report of the losses")
    workers: int = Field(1, ge=1, description="training processes that share each batch, by Ray Train; 1: no Ray")
    restarts: int = Field(
        10, ge=0, description="number of restarts from the last checkpoint when a training worker is lost"
    )
    accumulate: int = Field(1, ge=1, description="micro-batches into which each process divides its share of a batch")
    device: str = Field(
        "auto", description="device of the training, such as cpu or cuda. auto: a GPU where there is one"
    )
    engine: TrainingEngine = Field(
        "channels_last",
        description="how forward and backward passes are run, as in `workers.engine`; no engine changes the losses by "
        "more than rounding; the names with cuda_graphs need a GPU, and compiling takes a minute or more per width",
    )
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="seed of first weights, batches, noise and random widths")

    @property
    def distills(self) -> bool:
        """Whether widths learn from a teacher."""
        return self.distill > 0 or self.distill_spectrum > 0

    @model_validator(mode="after")
    def _a_teacher(self) -> Self:
        if self.teacher is not None and not self.distills:
            raise ValueError(
                "training.teacher needs training.distill above 0, the share of its output in the targets, or "
                "training.distill_spectrum"
            )
        if self.distills and self.teacher is None and self.rule == "single":
            raise ValueError(
                f"training.{'distill' if self.distill else 'distill_spectrum'} needs the widest network in every step: "
                "give training.rule sandwich, or another supernet as training.teacher"
            )
        if self.other_times and self.times is None:
            raise ValueError("training.other_times needs training.times: without it all times are drawn")
        if self.width_weights is not None and not (min(self.width_weights, default=0) > 0):
            raise ValueError(f"training.width_weights are positive factors; given: {list(self.width_weights)}")
        return self

    @model_validator(mode="after")
    def _an_image_a_part(self) -> Self:
        if self.workers * self.accumulate > self.batch:
            raise ValueError(
                f"a batch of {self.batch} images can't be cut into {self.workers} workers x {self.accumulate} "
                "micro-batches; raise training.batch"
            )
        return self


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
