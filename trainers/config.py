"""Typed settings of data, network, diffusion and training: plain mappings in, frozen models or one clear line out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator, model_validator

from stepfront.errors import InputError

Model = TypeVar("Model", bound=BaseModel)


class Settings(BaseModel):
    """A frozen group of settings; unknown keys and values of another type are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DataSettings(Settings):
    """Which images: `digits` (8x8, shipped with scikit-learn), or files of one of the other formats at `path`."""

    format: Literal["digits", "idx", "npz", "folder", "cifar", "parquet", "webdataset"] = "digits"
    path: str | None = None
    size: int | None = Field(None, ge=4, le=1024, description="resize to size x size pixels")
    channels: Literal[1, 3] | None = Field(None, description="1 grey, 3 RGB; default: as the images are")
    flip: bool = Field(False, description="mirror training images at random")
    held_out: float = Field(0.1, gt=0, lt=1, description="share kept from training where the data has no split")
    limit: int | None = Field(None, ge=16, description="use only the first N training images")
    memory_mb: float = Field(4096, gt=0, description="decoded pixels beyond this are mapped from a file in `cache`")
    cache: str = Field("runs/cache", min_length=1, description="where pixels larger than memory are kept, decoded once")

    @model_validator(mode="after")
    def _path_where_needed(self) -> Self:
        if self.format != "digits" and not self.path:
            raise ValueError(f"format {self.format} needs a path")
        return self


class NetworkSettings(Settings):
    """A slimmable U-Net (Ho et al. 2020, appendix B) and the widths at which it can run."""

    family: Literal["unet"] = "unet"
    base: int = Field(32, ge=4, description="channels at the first resolution at width 1")
    multipliers: tuple[PositiveInt, ...] = Field((1, 2), min_length=1)
    blocks: int = Field(1, ge=1, description="residual blocks a resolution")
    attention: tuple[PositiveInt, ...] = Field((), description="resolutions in pixels that get self-attention")
    dropout: float = Field(0.0, ge=0, lt=1)
    groups: int = Field(32, ge=1, description="most groups of a group norm")
    group_channels: int = Field(4, ge=1, description="fewest channels in a group")
    widths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    classes: PositiveInt | None = Field(None, description="of a class-conditional network; null: unconditional")
    skips: Literal["segment", "prefix"] = Field("segment", description="how concatenated skips are sliced")
    # What networks made elsewhere differ in; `stepfront import` sets it.
    norm_eps: float = Field(1e-5, gt=0, description="added to a group norm's variance")
    head_channels: PositiveInt | None = Field(None, description="channels of an attention head; null: one head")
    halving: Literal["centred", "end"] = Field("centred", description="where a strided convolution pads with zeros")
    frequencies: Literal["plain", "ddsm", "diffusers", "diffusers_shifted"] = Field(
        "plain", description="whose time embedding is met to the last bit; shifted is freq_shift 1"
    )

    @field_validator("widths")
    @classmethod
    def _ascending_to_one(cls, widths: tuple[float, ...]) -> tuple[float, ...]:
        if not widths or widths[-1] != 1.0 or list(widths) != sorted(set(widths)) or widths[0] <= 0:
            raise ValueError("widths must ascend within (0, 1] and end in 1.0, such as [0.25, 0.5, 0.75, 1.0]")
        return widths

    @model_validator(mode="after")
    def _whole_channels(self) -> Self:
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


class DiffusionSettings(Settings):
    """The variance-preserving noise schedule over `steps` training times."""

    schedule: Literal["linear", "cosine"] = "linear"
    steps: int = Field(1000, ge=2, le=100_000)
    beta_first: float = Field(1e-4, gt=0, lt=1)
    beta_last: float = Field(0.02, gt=0, lt=1)


class TrainingSettings(Settings):
    """The sandwich rule (Yu & Huang 2019): widest, narrowest and one random width in every step."""

    start: str | None = Field(None, description="a supernet's directory whose weights the training begins with")
    steps: int = Field(2000, ge=1)
    batch: int = Field(128, ge=1)
    lr: float = Field(4e-4, gt=0)
    warmup: int = Field(100, ge=0, description="steps of linear warm-up")
    decay: bool = Field(True, description="cosine decay of the learning rate to zero after the warm-up")
    clip: float = Field(1.0, gt=0, description="largest norm of the summed gradient")
    ema: float = Field(0.999, ge=0, lt=1)
    distill: float = Field(0.0, ge=0, le=1, description="share of the widest network's output in narrower targets")
    drop_labels: float = Field(
        0.1, ge=0, lt=1, description="share of labels replaced by the null class, which guidance needs"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 on a GPU")
    checkpoint_every: int = Field(500, ge=1)
    checkpoints: str | None = Field(
        None, description="URI of a pyarrow file system that keeps the checkpoint, too; null: the supernet's directory"
    )
    samples_every: int = Field(1, ge=0, description="checkpoints from one grid of samples to the next; 0: no grids")
    held_out_images: int = Field(256, ge=1, description="held-out images in each report of the losses")
    workers: int = Field(1, ge=1, description="processes that share each batch, by Ray Train; 1: this process alone")
    restarts: int = Field(10, ge=0, description="how often the workers go on from the checkpoint when one is lost")
    accumulate: int = Field(1, ge=1, description="micro-batches in which a process takes its share of the batch")
    device: str = "auto"
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _an_image_a_part(self) -> Self:
        if self.workers * self.accumulate > self.batch:
            raise ValueError(
                f"a batch of {self.batch} images can't be cut into {self.workers} workers x {self.accumulate} "
                "micro-batches; raise training.batch"
            )
        return self


class FeatureSettings(Settings):
    """What FID is computed on: the dataset's own classifier, or a feature file, and against which statistics."""

    name: str = Field("classifier", min_length=1)
    path: str | None = Field(
        None, description=".pt (TorchScript), .pt2 (torch.export), or .pth (state dict of FID's Inception-v3)"
    )
    reference: str | None = Field(None, description=".npz with mu and sigma; default: of the training images")
    real_images: int = Field(10_000, ge=16, description="training images that KID, precision and recall see at most")
    classifier_epochs: int = Field(10, ge=1)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _file_has_a_name(self) -> Self:
        if self.path is None and self.name != "classifier":
            raise ValueError(f"features {self.name!r} need a path; without one only 'classifier' is possible")
        if self.path is not None and self.name == "classifier":
            raise ValueError("features from a file need a name of their own, such as 'inception'")
        if self.reference is not None and self.path is None:
            raise ValueError("a reference file needs the feature file that it was made with: features.path")
        return self


class SamplerSettings(Settings):
    """The few-step sampler that will be deployed, and on which the search runs."""

    solver: Literal["ddim", "ddpm", "ddpm_large", "dpmpp_2m"] = "ddim"
    grid: Literal["leading", "trailing", "quadratic", "logsnr"] = "trailing"
    steps: int = Field(20, ge=1, le=1000)
    clip: bool = Field(False, description="clamp each prediction of the clean image to [-1, 1]")
    guidance: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="scale of classifier-free guidance; any but 0 and 1 takes two calls"
    )


class TrainerSettings(Settings):
    """All that makes a supernet."""

    data: DataSettings = DataSettings()
    network: NetworkSettings = NetworkSettings()
    diffusion: DiffusionSettings = DiffusionSettings()
    training: TrainingSettings = TrainingSettings()
    features: FeatureSettings = FeatureSettings()

    @model_validator(mode="after")
    def _labels_to_drop(self) -> Self:
        drop = self.training.drop_labels
        if self.network.classes is None and drop != TrainingSettings().drop_labels:
            raise ValueError(f"training.drop_labels {drop:g} needs a class-conditional network: give network.classes")
        return self


def validate(model: type[Model], given: Mapping[str, Any]) -> Model:
    """`given` as a frozen model.  Raises InputError with one line: the key, what was given, what is possible."""
    try:
        # JSON mode keeps strictness ("12" is no number) while lists still become tuples.
        return model.model_validate_json(json.dumps(given))
    except ValidationError as error:
        raise InputError(_one_line(model, error)) from None
    except (TypeError, ValueError) as error:
        raise InputError(f"settings: {error}") from None


def _one_line(model: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    where = [part for part in first["loc"] if isinstance(part, str)]
    key = ".".join(str(part) for part in first["loc"]) or "settings"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"unknown setting {key!r}; possible here: {', '.join(_keys_at(model, where[:-1]))}"
    given = first.get("input")
    # What was given may hold a password, which the message has hidden.
    shown = "" if isinstance(given, dict) or "***" in message else f" (given: {given!r})"
    more = f"; and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return f"{key}: {message[:1].lower()}{message[1:]}{shown}{more}"


def _keys_at(model: type[BaseModel], where: list[str]) -> list[str]:
    for name in where:
        annotation = model.model_fields[name].annotation if name in model.model_fields else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return sorted(model.model_fields)
