"""Define the settings of what is searched and how: the space, variation, screening and the budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from stepfront.errors import InputError
from stepfront.plugins import PROXIES, SOLVERS
from stepfront.trainers.config import Grid
from stepfront.trainers.validation import Settings
from stepfront.trainers.variant import Variant, parse_variant

MOST_CHOICES = 36
"""Solvers, and variants of a step, that a search can choose from: a genome has one letter for each."""


class SpaceSettings(Settings):
    """The plans that are searched."""

    encoding: Literal["stages", "steps", "cuts"] = Field(
        "stages", description="genes of a plan. stages: one width per stage; steps: one per step; cuts: few cut points"
    )
    stages: int = Field(10, ge=1, le=1000, description="number of equal stages (encoding stages)")
    cuts: int = Field(2, ge=1, le=3, description="maximum number of cut points (encoding cuts)")
    skip: Literal[False, True, "even"] = Field(
        "even",
        description="number of steps. even: any number, spread evenly; true: any step may be left out, and the solver "
        "spans the gap; false: all steps (default with encoding cuts)",
    )

    variants: tuple[str, ...] | None = Field(
        None,
        description="what a step chooses from: widths, and widths with the marks r (reuse deep features of the last "
        "full step), u (unguided), g3 (guided at scale 3 in place of sampler.guidance) and d1, d2, ... (a depth of "
        "network.depths), such as [0.5, 0.5d1, 1.0, 1.0r]; null: all widths at full depth",
    )
    solvers: (
        Annotated[tuple[Annotated[str, AfterValidator(SOLVERS.check)], ...], Field(max_length=MOST_CHOICES)] | None
    ) = Field(
        None,
        description="solvers that plans choose from, sampler.solver among them, such as [unipc_2, dpmpp_2m]; null: "
        "that one alone",
    )
    grids: tuple[Grid, ...] | None = Field(
        None,
        description="time grids that plans choose from, sampler.grid among them, such as [quadratic, edm_open]; null: "
        "that one alone",
    )

    @field_validator("variants", mode="before")
    @classmethod
    def _texts(cls, given: Any) -> Any:
        if not isinstance(given, list | tuple):
            return given
        return tuple(repr(float(one)) if isinstance(one, int | float) else one for one in given)

    @field_validator("variants")
    @classmethod
    def _possible_variants(cls, given: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if given is None:
            return None
        try:
            variants = tuple(map(parse_variant, given))
        except InputError as error:
            raise ValueError(str(error)) from None
        if len(variants) > MOST_CHOICES:
            raise ValueError(f"it has {len(variants)} variants; give at most {MOST_CHOICES}")
        if Variant(1.0) not in variants:
            raise ValueError("it lacks 1.0, the full width that all plans are compared with; add it")
        for variant in variants:
            if variants.count(variant) > 1:
                raise ValueError(f"{variant} is given twice; give each once")
            if variant.full not in variants:
                raise ValueError(f"{variant} reuses features of {variant.full}, which is not among them; add it")
        return given

    @property
    def listed(self) -> tuple[Variant, ...]:
        """The variants as given; none where all widths are searched."""
        return tuple(map(parse_variant, self.variants or ()))

    @field_validator("solvers", "grids", mode="before")
    @classmethod
    def _tuples(cls, given: Any) -> Any:
        # The validator of all keys below hands Python's values on, in which a list is no tuple.
        return tuple(given) if isinstance(given, list) else given

    @field_validator("solvers", "grids")
    @classmethod
    def _some_and_each_once(cls, given: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if given is not None and not given:
            one = str(info.field_name).removesuffix("s")
            raise ValueError(f"the list is empty; give some, or null for sampler.{one} alone")
        if twice := [name for name in dict.fromkeys(given or ()) if (given or ()).count(name) > 1]:
            raise ValueError(f"{twice[0]} is given twice; give each once")
        return given

    @property
    def searches_sampler(self) -> bool:
        """Whether plans differ in solver or grid."""
        return len(self.solvers or ()) > 1 or len(self.grids or ()) > 1

    @model_validator(mode="before")
    @classmethod
    def _cuts_take_all(cls, given: Any) -> Any:
        return {"skip": False} | given if isinstance(given, dict) and given.get("encoding") == "cuts" else given

    @model_validator(mode="after")
    def _even_has_units(self) -> Self:
        if self.skip == "even" and self.encoding == "cuts":
            raise ValueError("skip: even needs encoding stages or steps, not cuts; possible: true, false")
        return self


class VariationSettings(Settings):
    """How new plans are made from evaluated ones.  docs/search.md gives the measurements behind the defaults."""

    population: int = Field(
        20, ge=4, description="number of best trials that parents are drawn from; trials per generation"
    )
    crossover: float = Field(0.5, ge=0, le=1, description="probability that a child has two parents")
    mutations: int = Field(1, ge=1, description="maximum number of mutations per child")


class ScreenSettings(Settings):
    """How a cheap proxy chooses which child is evaluated."""

    renamed: ClassVar[Mapping[str, str]] = {"rung": "proxy"}

    proxy: Annotated[str, AfterValidator(lambda name: name if name == "none" else PROXIES.check(name))] = Field(
        "model",
        description="score that stands in for FID. model: regression on the search's own trials; gap: loss per step "
        "and width; paired: distance to full-width images; none: no screening; or your own (docs/plugins.md)",
    )
    offspring: int = Field(32, ge=1, description="children made per child that is evaluated")
    neighbours: int = Field(
        100, ge=0, description="plans one change away from a point of the front that are screened beside the children"
    )
    climb: int = Field(
        4,
        ge=0,
        description="most single changes from the chosen plan on, each to the plan that the screening prefers; with "
        "proxy model alone",
    )
    coding: Literal["level", "thermometer"] = Field(
        "thermometer",
        description="features of a plan in proxy model. level: one number per unit; thermometer: one per unit and "
        "width that it reaches",
    )
    acquisition: Literal["optimistic", "expected"] = Field(
        "expected",
        description="gain of hypervolume that is compared. optimistic: at one standard deviation below the expected "
        "FID; expected: its mean over the distribution of FID, with proxy model and two objectives",
    )
    least_tau: float = Field(
        0.5, ge=-1, le=1, description="Kendall's tau of proxy and FID below which the proxy is not used"
    )

    @property
    def steps_of_climb(self) -> int:
        """The most changes of a climb: none with a proxy that may take an evaluation's time for each plan."""
        return self.climb if self.proxy == "model" else 0


class FitSettings(Settings):
    """When a search pauses to fit samplers to points of its front, as `stepfront fit` does afterwards."""

    every: int = Field(
        0, ge=0, description="generations between two pauses in which samplers are fitted to front points; 0: none"
    )
    points: int = Field(
        4, ge=1, description="front points per pause, evenly spread over those that were not fitted before"
    )


class BudgetSettings(Settings):
    """When a search ends: at the first limit that it reaches."""

    trials: int | None = Field(120, ge=1, description="number of evaluations, failed ones and fits included")
    minutes: float | None = Field(
        None, gt=0, description="running time of all sessions, with fits and the noise of scores"
    )
    tflops: float | None = Field(None, gt=0, description="network FLOPs of all evaluations and of fits, in 1e12")
    patience: int | None = Field(
        None, ge=1, description="generations in a row without growth of the hypervolume beyond noise"
    )

    @model_validator(mode="after")
    def _some_limit(self) -> Self:
        if self.trials is None and self.minutes is None and self.tflops is None and self.patience is None:
            raise ValueError("a budget needs a limit: trials, minutes, tflops or patience")
        return self
