"""Define the settings of learning a sampler: what is learnt, from which pairs, and for how long."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from stepfront.errors import InputError
from stepfront.plugins import FEATURES, SOLVERS, is_import_path
from stepfront.trainers.training_settings import LARGEST_SEED
from stepfront.trainers.validation import Settings

Learnt = Literal["times", "network_times", "solver"]
"""What is learnt: times; also the times that the network is told; also corrections of the solver's coefficients."""

SamplerKind = Literal["closed_form"] | Learnt
"""Which sampler a plan gets: the best solver and grid made by hand, or what is learnt of one."""


class DistanceFeatures(Settings):
    """The network that images are compared by while a sampler is learnt, with `distance: features` and `both`."""

    name: str | None = Field(
        None,
        min_length=1,
        description="feature set by name, as in `features.name` (not auto); with `path`: what its network is called; "
        "null: none",
    )
    path: str | None = Field(
        None,
        description="feature file, such as TorchScript (.pt): its forward takes images in [-1, 1], gives one row per "
        "image, and lets gradients through",
    )

    @model_validator(mode="after")
    def _name_fits(self) -> Self:
        name, path = self.name, self.path
        if name is None and path is not None:
            raise ValueError("features from a file need a name of their own, such as lpips")
        if name is None or (path is None and is_import_path(name)):
            return self
        if path is not None and name in {"auto", *FEATURES.ours}:
            raise ValueError("features from a file need a name of their own, such as lpips")
        try:
            if path is None:
                FEATURES.check(name)
        except InputError:
            raise ValueError(f"features {name!r} need a path; without one possible: {FEATURES.possible}") from None
        return self


class LearningSettings(Settings):
    """How a sampler is learnt.  docs/bench-sampler.md gives the measurements behind the defaults."""

    pairs: int = Field(128, ge=1, description="pairs of noise and teacher image to learn from")
    stopping_pairs: int = Field(64, ge=1, description="pairs that choose the iteration that is kept")
    held_out_pairs: int = Field(
        64, ge=1, description="pairs that nothing is chosen on; the reported distance is theirs"
    )
    iterations: int = Field(200, ge=1, description="gradient steps at most")
    batch: int = Field(16, ge=1, description="pairs per gradient step")
    check_every: int = Field(10, ge=1, description="gradient steps between two distances of the stopping pairs")
    patience: int = Field(10, ge=1, description="checks in a row without a smaller distance after which learning stops")
    starts: int = Field(
        3,
        ge=1,
        description="closed-form samplers that learning starts from, in a search those of the smallest FID; those of "
        "earlier searches (`--from`) come on top, and the best start continues",
    )
    rate_times: float = Field(0.05, gt=0, description="learning rate of the times")
    rate_network_times: float = Field(1.0, gt=0, description="learning rate of the network's times, per 1000 times")
    rate_coefficients: float = Field(0.003, gt=0, description="learning rate of the solver's coefficients")
    average: float = Field(0.0, ge=0, lt=1, description="decay of the moving average of what is learnt; 0: none")
    clip_gradient: float = Field(1.0, gt=0, description="largest norm of the gradient of times, and of coefficients")
    least_gap: float = Field(1.0, ge=0, description="least distance of two times, in training times")
    learn_start: bool = Field(
        True,
        description="whether the first time is learnt too; false: it is the noisiest",
    )
    ball: float = Field(
        0.0,
        ge=0,
        description="radius around each starting noise, as a share of its norm, in which the noise of a pair may move "
        "while learning (LD3); 0: it stays",
    )
    rate_noise: float = Field(0.1, gt=0, description="learning rate of the starting noise within its ball")
    distance: Literal["root", "squared", "features", "both"] = Field(
        "root",
        description="distance to the teacher's image. root: root of the mean squared error, which outliers sway less; "
        "squared: the mean squared error; features: of the network in `learning.features`; both: squared and features",
    )
    features: DistanceFeatures = DistanceFeatures()
    solvers: tuple[Annotated[str, AfterValidator(SOLVERS.check)], ...] = Field(
        (),
        description="solvers to start from, on all grids; empty: in a search, its own solver and grid and the six "
        "pairs of the baseline samplers; elsewhere every deterministic one",
    )
    teacher_solver: Annotated[str, AfterValidator(SOLVERS.check)] = Field(
        "dpmpp_2m", description="solver of the teacher, which runs at full width"
    )
    teacher_steps: int = Field(50, ge=1, description="steps of the teacher")
    memory_mb: float = Field(
        1024, gt=0, description="memory for the activations of one gradient step, above which they are computed twice"
    )
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="seed of the learning noise and of the order of the pairs")

    @property
    def compares_features(self) -> bool:
        """Whether the distance needs a feature network."""
        return self.distance in ("features", "both")


def no_features(distance: str) -> str:
    """Return the line that refuses a distance without a network to compare images by."""
    return (
        f"learning.distance: {distance} needs a network to compare images by; name one that does not score the search, "
        "such as learning.features={name: lpips, path: lpips.pt}, or set learning.distance=root"
    )
