"""Define the settings of how plans are scored: evaluations, and the confirmation of the front."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from stepfront.trainers.config import FeatureSettings
from stepfront.trainers.training_settings import LARGEST_SEED
from stepfront.trainers.validation import Settings

OBJECTIVES = ("fid", "gflops", "latency_ms")
_CONSTRAINT = re.compile(r"\s*(\w+)\s*(<=|>=)\s*([0-9.eE+-]+)\s*")


class EvaluationSettings(Settings):
    """How a plan is scored."""

    images: int = Field(512, ge=16, description="images per score; more images give a less noisy score")
    batch: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="images per network call. auto: the largest batch that fits on a GPU, 256 on a CPU"
    )
    noise_seed: int = Field(0, ge=0, le=LARGEST_SEED, description="seed of the noise that all plans are scored on")
    noise_repeats: int = Field(
        4,
        ge=0,
        description="number of extra noise seeds that full width and a middle width are scored on, to know how "
        "large a difference is noise; 0: not measured",
    )
    samplers: bool = Field(
        True,
        description="whether a search ends by scoring full width with the best solvers and grids at a few numbers of "
        "steps, the baseline that it has to beat",
    )
    objectives: tuple[str, ...] = Field(
        ("fid", "gflops"), description="what is minimised: fid, and one or both of gflops and latency_ms"
    )
    constraints: tuple[str, ...] = Field(
        (), description="limits on fid, gflops, latency_ms or a score that is an objective, such as 'gflops <= 2.0'"
    )

    @field_validator("objectives")
    @classmethod
    def _known_objectives(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(names) < 2 or names[0] != "fid" or set(names) - set(OBJECTIVES) or len(set(names)) != len(names):
            raise ValueError("objectives are fid and one or both of gflops, latency_ms, such as ['fid', 'gflops']")
        return names

    @field_validator("noise_repeats")
    @classmethod
    def _spread_needs_two(cls, repeats: int) -> int:
        if repeats == 1:
            raise ValueError("a spread needs at least 2 noise seeds; give 2 or more, or 0 to leave it out")
        return repeats

    @field_validator("constraints")
    @classmethod
    def _readable_constraints(cls, constraints: tuple[str, ...]) -> tuple[str, ...]:
        for text in constraints:
            parse_constraint(text)
        return constraints


class SecondFeatureSettings(FeatureSettings):
    """The second judge: features, independent of the search's, that every confirmed point is scored on as well."""

    name: str = Field(
        "auto",
        min_length=1,
        description="feature set, as in `features.name`, and not the search's own. auto: the first of random, "
        "degradations and, with labels, classifier that passes its examination and is not the search's own",
    )


class ConfirmSettings(Settings):
    """How the front is scored again on held-out noise seeds, and what counts as equal quality."""

    images: int = Field(1024, ge=16, description="images per score")
    seeds: int = Field(5, ge=2, description="number of held-out noise seeds, each of which gives a score")
    max_seeds: int = Field(
        15,
        ge=2,
        description="number of seeds up to which plans near a claim are scored, until it is decided; no more than "
        "`confirm.seeds`: none are added",
    )
    margin: float = Field(
        0.05,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="share of the reference's score by which a plan of equal quality may be worse, on both judges",
    )
    features: SecondFeatureSettings = SecondFeatureSettings()
    extrapolate: bool = Field(
        False, description="whether to extrapolate FID to infinitely many images, too (column fid_infinity)"
    )


def parse_constraint(text: str) -> tuple[str, str, float]:
    """Split `gflops <= 2.0` into (gflops, <=, 2.0).

    Raises ValueError for anything else.
    """
    match = _CONSTRAINT.fullmatch(text)
    if match is None:
        raise ValueError(f"constraint {text!r}; constraints look like 'gflops <= 2.0', over {', '.join(OBJECTIVES)}")
    return match[1], match[2], float(match[3])
