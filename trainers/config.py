"""Define the settings of data, diffusion, features and sampler; network and training have files of their own.

Every key has a description.  docs/settings.md is generated from them by `make docs`.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, field_validator, model_validator

from stepfront.errors import InputError
from stepfront.plugins import FEATURES, FORMATS, SOLVERS, is_import_path
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.training_settings import LARGEST_SEED, TrainingSettings
from stepfront.trainers.validation import Settings

Prediction = Literal["epsilon", "v", "sample", "flow", "edm"]
"""What a network predicts; see `trainers/networks/prediction.py`."""


class DataSettings(Settings):
    """The images.  docs/data.md describes the formats."""

    format: Annotated[str, AfterValidator(FORMATS.check)] = Field(
        "digits",
        description=f"format of the images: {', '.join(FORMATS.ours)}, or your own (docs/plugins.md); digits are "
        "scikit-learn's 8x8 images and need no path",
    )
    path: str | None = Field(None, description="file or folder of the images; required except for digits")
    size: int | None = Field(
        None, ge=4, le=1024, description="side in pixels to which images are resized; null: as they are"
    )
    channels: Literal[1, 3] | None = Field(None, description="1: grey, 3: RGB; null: as the images are")
    flip: bool = Field(False, description="whether training images are mirrored at random")
    held_out: float = Field(
        0.1, gt=0, lt=1, description="share of images held out from training where the data has no split"
    )
    limit: int | None = Field(
        None, ge=16, description="number of training images to use, drawn from each class in proportion; null: all"
    )
    splits: dict[str, Literal["train", "held_out", "unused"]] | None = Field(
        None,
        description="what folders, files or arrays of these names are for (`*` matches any text); {}: the data has no "
        "split; null: by the names, such as train, val and test",
    )
    labels: Literal["auto", "map", "keep", "ignore"] = Field(
        "auto",
        description="auto: classes are numbered from 0 on, and what may be no class is refused. map: every value is a "
        "class, also -1. keep: numbers stay as they are. ignore: images without labels",
    )
    class_levels: PositiveInt | None = Field(
        None, description="how many levels of nested folders name a class; null: all of them"
    )
    image_key: str | None = Field(
        None, min_length=1, description="column, array or extension that holds the images; null: by its name"
    )
    label_key: str | None = Field(
        None, min_length=1, description="column, array or extension that holds the labels; null: by its name"
    )
    background: Literal["white", "black", "grey"] = Field("white", description="what lies behind transparent pixels")
    range: tuple[float, float] | None = Field(
        None,
        description="values that become black and white in images of other than 8 bits, such as [0, 4095]; values "
        "beyond are cut off. null: 16 bits are 0 to 65,535, and other types are refused",
    )
    bad_files: float = Field(
        0.01, ge=0, le=1, description="share of images that may be unreadable and are left out; more is an error"
    )
    memory_mb: float = Field(
        4096,
        gt=0,
        description="memory for decoded pixels, in MB; larger data is mapped from a file in `cache`. No single array "
        "or picture may need more (256 are always granted)",
    )
    cache: str = Field(
        "runs/cache",
        min_length=1,
        description="folder for decoded pixels that exceed `memory_mb` and for latents; it may be deleted at any time",
    )
    autoencoder: str | None = Field(
        None,
        min_length=1,
        description="folder of an autoencoder (AutoencoderKL, AutoencoderTiny or VQModel of diffusers, or raw TAESD "
        "weights): networks work on its latents, and decoded images are judged (docs/latents.md). null: pixels",
    )
    latent_type: Literal["float16", "float32"] = Field("float16", description="number type of cached latents")

    @model_validator(mode="after")
    def _path_where_needed(self) -> Self:
        if self.format in FORMATS.ours and self.format != "digits" and not self.path:
            raise ValueError(f"format {self.format} needs a path")
        return self

    @field_validator("range")
    @classmethod
    def _black_below_white(cls, given: tuple[float, float] | None) -> tuple[float, float] | None:
        if given is not None and not (math.isfinite(given[0]) and math.isfinite(given[1]) and given[0] < given[1]):
            raise ValueError(f"two rising numbers are needed, such as [0, 4095]; given: {list(given)}")
        return given


class DiffusionSettings(Settings):
    """The variance-preserving noise schedule, and what the network predicts."""

    schedule: Literal["linear", "scaled_linear", "cosine", "flow", "edm"] = Field(
        "linear",
        description="shape of the noise schedule. scaled_linear: square roots of the betas rise linearly; flow: the "
        "signal-to-noise ratios of rectified flow; edm: log noise levels from 0.002 to 80, evenly spaced",
    )
    steps: int = Field(1000, ge=2, le=100_000, description="number of training times")
    beta_first: float = Field(
        1e-4, gt=0, lt=1, description="noise variance added at the first time (schedules linear and scaled_linear)"
    )
    beta_last: float = Field(
        0.02, gt=0, lt=1, description="noise variance added at the last time (schedules linear and scaled_linear)"
    )
    shift: float = Field(1.0, gt=0, description="how far schedule flow is shifted towards noise; 1: not at all")
    prediction: Prediction = Field(
        "epsilon",
        description="what the network predicts. epsilon: the noise; v: alpha epsilon - sigma x0; sample: the clean "
        "image; flow: epsilon - x0; edm: EDM's preconditioned network, which is told a noise level",
    )
    data_std: float = Field(0.5, gt=0, description="standard deviation of the images for prediction edm")


class FeatureSettings(Settings):
    """The features that FID is computed on, and the statistics of the real images."""

    name: str = Field(
        "auto",
        min_length=1,
        description="feature set. degradations: a network trained to tell degradations, rotations and kinds of images; "
        "random: an untrained network; classifier: trained on the labels; auto: the first of degradations and random "
        "that passes its examination; with `path`: any name; or your own (docs/plugins.md)",
    )
    path: str | None = Field(
        None,
        description="feature file: .pt (TorchScript), .pt2 (torch.export) or .pth (weights of FID's Inception-v3)",
    )
    reference: str | None = Field(None, description=".npz file with mu and sigma of the real images; null: computed")
    real_images: int = Field(
        10_000, ge=16, description="maximum number of training images for KID, precision and recall"
    )
    examine: Literal["refuse", "warn", "skip"] = Field(
        "refuse",
        description="what happens when named features fail their examination on held-out images with known harm; "
        "skip: no examination (docs/judges.md)",
    )
    training_steps: int = Field(800, ge=1, description="training steps of the network of `degradations`")
    classifier_epochs: int = Field(10, ge=1, description="training epochs of the network of `classifier`")
    seed: int = Field(
        0, ge=0, le=LARGEST_SEED, description="seed of the feature network: its training, or its random weights"
    )

    @model_validator(mode="after")
    def _file_has_a_name(self) -> Self:
        if self.path is None and self.name != "auto" and not is_import_path(self.name):
            try:
                FEATURES.check(self.name)
            except InputError:
                raise ValueError(
                    f"features {self.name!r} need a path; without one possible: auto, {FEATURES.possible}"
                ) from None
        if self.path is not None and self.name in {"auto", *FEATURES.ours}:
            raise ValueError("features from a file need a name of their own, such as 'inception'")
        if self.reference is not None and self.name in {"auto", *FEATURES.ours}:
            raise ValueError("a reference file needs the feature file that it was made with: features.path")
        return self

    @property
    def is_file(self) -> bool:
        """Whether the features are the network in the file at `path`, and `name` is only what it is called."""
        return self.path is not None and not is_import_path(self.name)


LEARNT = "learnt"
"""The value of `sampler.solver` and `sampler.times` that has them learnt."""

Grid = Literal["leading", "trailing", "quadratic", "quadratic_open", "logsnr", "logsnr_open", "edm", "edm_open"]
"""The hand grids of times (diffusion/schedule.py)."""
BEST = "best"
"""The value of `sampler.solver` that has solver and grid measured for each number of steps."""


def _solver(name: str) -> str:
    if name in (BEST, LEARNT):
        return name
    try:
        return SOLVERS.check(name)
    except InputError:
        raise ValueError(f"unknown solver {name!r}; possible: {BEST}, {LEARNT}, {SOLVERS.possible}") from None


class SamplerSettings(Settings):
    """The sampler that will be deployed, and that the search uses."""

    solver: Annotated[str, AfterValidator(_solver)] = Field(
        "unipc_2",
        description=f"solver: {', '.join(SOLVERS.ours)}, or your own (docs/plugins.md); ddpm_large is ddpm with the "
        "larger of its two variances; best: for each number of steps, the one of six leading pairs of solver and grid, "
        "or of `learning.solvers` on all grids, with the smallest FID at full width, measured before the search; "
        "learnt: times and coefficients are learnt before the search, from the best of these on (`learning`)",
    )
    times: Literal["grid", "learnt"] = Field(
        "grid",
        description="times of the steps. grid: those of `grid`; learnt: learnt before the search for each number of "
        "steps (`learning`)",
    )
    grid: Grid = Field(
        "quadratic",
        description="how the times of the steps are spread over the training times; an `_open` grid spends no step at "
        "time 0",
    )
    steps: int = Field(20, ge=1, le=1000, description="number of denoising steps at most")
    clip: bool = Field(False, description="whether predictions of the clean image are clamped to [-1, 1]")
    guidance: float = Field(
        1.0,
        ge=0,
        allow_inf_nan=False,
        description="scale of classifier-free guidance; values other than 0 and 1 take two network calls per step",
    )

    @property
    def learnt(self) -> Literal["closed_form", "network_times", "solver"] | None:
        """What is found before a search for each number of steps; None: all plans run on `solver` and `grid`.

        It is the best closed form, learnt times (the solver's and the network's), or also learnt coefficients.
        """
        if self.solver == LEARNT:
            return "solver"
        if self.times == LEARNT:
            return "network_times"
        return "closed_form" if self.solver == BEST else None


class TrainerSettings(Settings):
    """All settings that make a supernet."""

    data: DataSettings = DataSettings()
    network: NetworkSettings = NetworkSettings()
    diffusion: DiffusionSettings = DiffusionSettings()
    training: TrainingSettings = TrainingSettings()
    features: FeatureSettings = FeatureSettings()

    @model_validator(mode="after")
    def _a_weight_per_width(self) -> Self:
        weights, widths = self.training.width_weights, self.network.widths
        if weights is not None and len(weights) != len(widths):
            raise ValueError(
                f"training.width_weights has {len(weights)} factors for the {len(widths)} widths "
                f"{', '.join(f'{width:g}' for width in widths)}; give one per width"
            )
        return self

    @model_validator(mode="after")
    def _times_exist(self) -> Self:
        times, steps = self.training.times, self.diffusion.steps
        if times is not None and not 0 <= times[0] <= times[1] < steps:
            raise ValueError(
                f"training.times {list(times)} are not the first and last of some training times; possible: 0 to "
                f"{steps - 1}, ascending"
            )
        return self

    @model_validator(mode="after")
    def _labels_to_drop(self) -> Self:
        drop = self.training.drop_labels
        if self.network.classes is None and drop != TrainingSettings().drop_labels:
            raise ValueError(f"training.drop_labels {drop:g} needs a class-conditional network: give network.classes")
        return self
