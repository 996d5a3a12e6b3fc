"""Define and load the settings of a run: one YAML file and `--set key=value` overrides become a frozen object.

Every key has a description.  docs/settings.md is generated from them by `make docs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from stepfront.addresses import is_uri, joined, only_address
from stepfront.errors import InputError
from stepfront.files import write_text
from stepfront.search.settings.overrides import apply_overrides, each_once
from stepfront.search.settings.own_scores import ScoreSettings, check_scores
from stepfront.search.settings.scoring import OBJECTIVES, ConfirmSettings, EvaluationSettings, parse_constraint
from stepfront.search.settings.space import (
    MOST_CHOICES,
    BudgetSettings,
    FitSettings,
    ScreenSettings,
    SpaceSettings,
    VariationSettings,
)
from stepfront.search.settings.workers import TrackingSettings, WorkerSettings
from stepfront.search.settings.yaml_reader import read_yaml_file, yaml_of
from stepfront.trainers.config import SamplerSettings, TrainerSettings
from stepfront.trainers.learning_settings import LearningSettings, no_features
from stepfront.trainers.training_settings import LARGEST_SEED, AdaptSettings
from stepfront.trainers.validation import Settings, validate
from stepfront.trainers.variant import Variant, depth_problem

__all__ = [
    "BudgetSettings",
    "ConfirmSettings",
    "EvaluationSettings",
    "RunSettings",
    "ScreenSettings",
    "SpaceSettings",
    "TrackingSettings",
    "VariationSettings",
    "WorkerSettings",
    "each_once",
    "load_settings",
    "parse_constraint",
    "save_settings",
    "settings_from",
]

INITIAL_PLAN_KINDS = ("uniform", "cuts", "monotone", "snr", "gap", "dp", "fewer_steps", "random")


MOST_DP_STEPS = 256
"""Steps of a sampler for which the errors of all its steps are measured, at most."""


class RunSettings(TrainerSettings):
    """All settings of a supernet and of a search over it."""

    renamed: ClassVar[Mapping[str, str]] = {"seeds": "initial_plans"}

    name: str = Field(
        "run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name of the run, and of its folder in `directory`"
    )
    directory: str = Field(
        "runs", description="folder or URI that holds runs, such as s3://bucket/runs; a run is in DIRECTORY/NAME"
    )
    supernet: str | None = Field(
        None, description="folder or URI of the supernet to search; null: DIRECTORY/NAME/supernet"
    )
    adapt: AdaptSettings = AdaptSettings()
    sampler: SamplerSettings = SamplerSettings()
    learning: LearningSettings = LearningSettings()
    space: SpaceSettings = SpaceSettings()
    variation: VariationSettings = VariationSettings()
    initial_plans: dict[str, int] = Field(
        {"uniform": 4, "gap": 8, "monotone": 8, "fewer_steps": 8},
        description="number of plans per kind in the first generation: uniform, cuts, monotone, snr, gap, dp, "
        "fewer_steps (where steps may be skipped), random, front:SEARCH",
    )
    screen: ScreenSettings = ScreenSettings()
    fit: FitSettings = FitSettings()
    scores: tuple[ScoreSettings, ...] = Field(
        (),
        description="scores beside FID: KID, as [{name: kernel_distance, function: kid}], or your own, such as "
        "[{name: accuracy, function: 'my_scores:accuracy', goal: higher, use: objective}] (docs/plugins.md)",
    )
    budget: BudgetSettings = BudgetSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    confirm: ConfirmSettings = ConfirmSettings()
    workers: WorkerSettings = WorkerSettings()
    storage: str | None = Field(
        None, description="Optuna storage: a database URL, or journal; null: SQLite in the search directory"
    )
    tracking: TrackingSettings = TrackingSettings()
    search_seed: int = Field(0, ge=0, le=LARGEST_SEED, description="seed of the search's random choices")

    _address = field_validator("storage")(only_address)

    @property
    def learns(self) -> bool:
        """Whether samplers are learnt before the search or within it."""
        return self.sampler.learnt not in (None, "closed_form") or self.fit.every > 0

    @field_validator("initial_plans")
    @classmethod
    def _known_initial_plans(cls, wanted: dict[str, int]) -> dict[str, int]:
        possible = ", ".join([*INITIAL_PLAN_KINDS, "front:SEARCH"])
        for name, count in wanted.items():
            if name not in INITIAL_PLAN_KINDS and not name.startswith("front:"):
                raise ValueError(f"unknown initial plans {name!r}; possible: {possible}")
            if count < 0:
                raise ValueError(f"initial_plans.{name} is {count}; give 0 or more")
        if not any(wanted.values()):
            raise ValueError("initial_plans is empty; give some, such as {uniform: 4, gap: 8, monotone: 8}")
        return wanted

    @model_validator(mode="after")
    def _scores_fit(self) -> Self:
        check_scores(self.scores, self.evaluation.objectives)
        bounded = (*OBJECTIVES, *(score.name for score in self.scores if score.use == "objective"))
        for text in self.evaluation.constraints:
            if parse_constraint(text)[0] not in bounded:
                raise ValueError(
                    f"constraint {text!r}; constraints look like 'gflops <= 2.0', over {', '.join(bounded)}"
                )
        return self

    @model_validator(mode="after")
    def _steps_exist(self) -> Self:
        if self.sampler.steps > self.diffusion.steps:
            raise ValueError(f"sampler.steps {self.sampler.steps} exceeds diffusion.steps {self.diffusion.steps}")
        return self

    @model_validator(mode="after")
    def _steps_can_be_measured(self) -> Self:
        if self.initial_plans.get("dp") and self.sampler.steps > MOST_DP_STEPS:
            raise ValueError(
                f"initial_plans.dp measures samplers of at most {MOST_DP_STEPS} steps, and sampler.steps is "
                f"{self.sampler.steps}; leave dp out, or give fewer steps"
            )
        return self

    @model_validator(mode="after")
    def _sampler_is_among_the_choices(self) -> Self:
        space, sampler = self.space, self.sampler
        if sampler.learnt is not None and (space.solvers is not None or space.grids is not None):
            raise ValueError(
                "a learnt sampler has its own solver and times, so plans can't choose them; leave out space.solvers "
                "and space.grids, or the learnt sampler"
            )
        for name, own, choices in (("solver", sampler.solver, space.solvers), ("grid", sampler.grid, space.grids)):
            if choices is not None and own not in choices:
                raise ValueError(
                    f"space.{name}s lacks sampler.{name} {own}, on which full width and the baselines run; add it, or "
                    f"set sampler.{name} to one of {', '.join(choices)}"
                )
        return self

    @model_validator(mode="after")
    def _variants_are_the_networks(self) -> Self:
        widths, classes, guidance = self.network.widths, self.network.classes, self.sampler.guidance
        if self.space.variants is None and len(widths) > MOST_CHOICES:
            raise ValueError(
                f"network.widths has {len(widths)} widths, and a step chooses from at most {MOST_CHOICES}; name "
                "them in space.variants"
            )
        for variant in self.space.listed:
            if variant.width not in widths:
                possible = ", ".join(f"{width:g}" for width in widths)
                raise ValueError(
                    f"space.variants has {variant}, and network.widths has no {variant.width:g}; possible: {possible}"
                )
            if problem := depth_problem(variant, self.network.depths):
                raise ValueError(f"space.variants has {variant}: {problem}")
            if problem := _guidance_problem(variant, classes, guidance):
                raise ValueError(f"space.variants has {variant}, {problem}")
        return self

    @model_validator(mode="after")
    def _learnt_samplers_fit(self) -> Self:
        learnt = self.sampler.learnt
        if learnt is not None and self.space.skip is True:
            raise ValueError(
                "a learnt sampler has one time per step that runs, so space.skip: true can't use it; give even or false"
            )
        if (learnt is not None or self.fit.every) and self.learning.teacher_steps < self.sampler.steps:
            raise ValueError(
                f"learning.teacher_steps {self.learning.teacher_steps} is below sampler.steps {self.sampler.steps}; "
                "a teacher needs as many steps at least"
            )
        if self.learns and self.learning.compares_features and self.learning.features.name is None:
            raise ValueError(no_features(self.learning.distance))
        return self

    @model_validator(mode="after")
    def _guidance_has_classes(self) -> Self:
        guidance = self.sampler.guidance
        if guidance != 1 and self.network.classes is None:
            raise ValueError(f"sampler.guidance {guidance:g} needs a class-conditional network: give network.classes")
        if guidance != 1 and not self.training.drop_labels:
            raise ValueError(
                f"sampler.guidance {guidance:g} needs training.drop_labels above 0: it trains the null class"
            )
        return self

    @property
    def run_place(self) -> str:
        """Return DIRECTORY/NAME as it was given: a path or a URI."""
        return joined(self.directory, self.name) if is_uri(self.directory) else str(Path(self.directory) / self.name)

    @property
    def run_directory(self) -> Path:
        """Return DIRECTORY/NAME as a local folder; raise InputError when it is a URI."""
        return _local(self.run_place)

    @property
    def supernet_place(self) -> str:
        """Return the supernet's directory as it was given: a path or a URI."""
        if self.supernet:
            return self.supernet
        return joined(self.run_place, "supernet") if is_uri(self.run_place) else str(Path(self.run_place) / "supernet")

    @property
    def supernet_directory(self) -> Path:
        """Return the supernet's directory as a local folder; raise InputError when it is a URI."""
        return _local(self.supernet_place)

    @property
    def search_directory(self) -> Path:
        """Return the folder in which the search keeps everything."""
        return self.run_directory / "search"


def _guidance_problem(variant: Variant, classes: int | None, guidance: float) -> str:
    """Return why a step can't be guided as a variant says, where the sampler's scale is `guidance`; empty if it can."""
    if variant.guided and variant.scale is None:
        return ""
    if classes is None or guidance in (0, 1):
        does = "which turns guidance off (u)" if not variant.guided else "which guides at a scale of its own (g)"
        why = "the network has no classes" if classes is None else f"sampler.guidance is {guidance:g}"
        advice = "leave it out"
        if classes is not None and variant.scale is not None:
            advice = "set sampler.guidance to one of the scales, and write 1.0u for a step without guidance"
        return f"{does}, and {why}: no step is guided; {advice}"
    if variant.scale == guidance:
        return f"and sampler.guidance is {guidance:g}: write {variant._replace(scale=None)}, which runs at that scale"
    return ""


def _local(place: str) -> Path:
    if is_uri(place):
        raise InputError(f"{place} is a URI where a local folder is needed; work in a local copy of it")
    return Path(place)


def load_settings(path: Path, overrides: Sequence[str] = ()) -> RunSettings:
    """Return the settings of a YAML file with `key=value` overrides, such as `budget.trials=200`.

    Raises InputError with one line when the file is missing, is not YAML or holds an invalid setting, and when an
    override undoes another.
    """
    path = Path(path)
    content = read_yaml_file(path)
    if content is None:
        raise InputError(f"{path} is empty; a mapping of settings was expected, such as `name: digits`")
    if not isinstance(content, dict):
        raise InputError(f"{path} holds {type(content).__name__}; a mapping of settings was expected")
    return settings_from(content, each_once(overrides), f"{path}: ")


def settings_from(content: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "") -> RunSettings:
    """Return the settings of a plain mapping with `key=value` overrides.

    Raises InputError with one line when a setting is invalid.  The line begins with `source` when the mapping is at
    fault, and with `--set` when an override is.
    """
    merged = apply_overrides(content, overrides)
    try:
        return validate(RunSettings, merged)
    except InputError as error:
        blamed = "--set: " if overrides and _refusal(content) != str(error) else source
        raise InputError(f"{blamed}{error}") from None


def _refusal(content: Mapping[str, Any]) -> str:
    """Return why the settings of a mapping are refused; empty where they are valid."""
    try:
        validate(RunSettings, content)
    except InputError as error:
        return str(error)
    return ""


def save_settings(settings: Settings, path: Path) -> None:
    """Write the resolved settings as YAML."""
    write_text(path, yaml_of(settings.model_dump(mode="json")))
