"""Typed settings of a whole run: one YAML file and `--set key=value` overrides in, frozen settings out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator

from stepfront.addresses import is_uri, joined, without_literal_secret
from stepfront.errors import InputError
from stepfront.files import write_text
from stepfront.trainers.config import SamplerSettings, Settings, TrainerSettings, TrainingSettings, validate

INITIAL_PLAN_KINDS = ("uniform", "cuts", "monotone", "snr", "gap", "fewer_steps", "random")
OBJECTIVES = ("fid", "gflops", "latency_ms")
_CONSTRAINT = re.compile(r"\s*(\w+)\s*(<=|>=)\s*([0-9.eE+-]+)\s*")


class SpaceSettings(Settings):
    """Which plans are searched."""

    encoding: Literal["stages", "steps", "cuts"] = "stages"
    stages: int = Field(10, ge=1, le=1000, description="equal stages of encoding `stages`")
    cuts: int = Field(2, ge=1, le=3, description="most cut points of encoding `cuts`")
    skip: Literal[False, True, "even"] = Field(
        "even",
        description="even: any number of steps, on the time grid of that number; true: steps may be left out, and the "
        "solver spans the gap; false, the default of cuts: all steps",
    )

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
    """How children are made; the defaults are justified by measurement in docs/search.md."""

    population: int = Field(20, ge=4, description="size of the elite that parents come from; trials in a generation")
    crossover: float = Field(0.5, ge=0, le=1, description="probability that a child has two parents")
    mutations: int = Field(1, ge=1, description="most mutations of a child")


class ScreenSettings(Settings):
    """Offspring are compared on a cheap proxy before an FID evaluation is spent on the best of them."""

    proxy: Literal["none", "gap", "paired", "model"] = "model"
    offspring: int = Field(32, ge=1, description="children made for each one that is evaluated")
    least_tau: float = Field(0.5, ge=-1, le=1, description="Kendall tau with fid below which the proxy is not trusted")


class BudgetSettings(Settings):
    """When a search ends: at the first limit that is reached."""

    trials: int | None = Field(120, ge=1)
    minutes: float | None = Field(None, gt=0)
    tflops: float | None = Field(None, gt=0, description="network FLOPs of all evaluations, in 1e12")
    patience: int | None = Field(None, ge=1, description="generations without growth of the hypervolume")

    @model_validator(mode="after")
    def _some_limit(self) -> Self:
        if self.trials is None and self.minutes is None and self.tflops is None and self.patience is None:
            raise ValueError("a budget needs a limit: trials, minutes, tflops or patience")
        return self


class EvaluationSettings(Settings):
    """How a plan is scored."""

    images: int = Field(512, ge=16)
    batch: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="images of one network call; auto: on a GPU the largest that fits, on a CPU 256"
    )
    noise_seed: int = Field(0, ge=0)
    objectives: tuple[str, ...] = ("fid", "gflops")
    constraints: tuple[str, ...] = Field((), description="such as 'gflops <= 2.0'")

    @field_validator("objectives")
    @classmethod
    def _known_objectives(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(names) < 2 or names[0] != "fid" or set(names) - set(OBJECTIVES) or len(set(names)) != len(names):
            raise ValueError("objectives are fid and one or both of gflops, latency_ms, such as ['fid', 'gflops']")
        return names

    @field_validator("constraints")
    @classmethod
    def _readable_constraints(cls, constraints: tuple[str, ...]) -> tuple[str, ...]:
        for text in constraints:
            parse_constraint(text)
        return constraints


class ConfirmSettings(Settings):
    """How the front is scored again, on noise that the search never saw."""

    images: int = Field(1024, ge=16)
    seeds: int = Field(5, ge=2)


class WorkerSettings(Settings):
    """The processes that evaluate.  `count: null` fills the cluster."""

    count: int | None = Field(None, ge=1)
    cpus: float = Field(1, gt=0)
    gpus: float = Field(0, ge=0)
    attempts: int = Field(3, ge=1, description="how often a plan is tried when its worker fails")
    limit_minutes: float | None = Field(
        None, gt=0, description="of one evaluation; null: ten minutes and 20 times the latency measured at full width"
    )
    ahead: Literal["auto", "always", "never"] = Field(
        "auto",
        description="hand a worker its next plan before it is done, so a budget of minutes ends up to an evaluation "
        "later; auto: with several workers and evaluations under 1.5 s",
    )
    engine: Literal["auto", "plain", "channels_last", "winograd", "compiled"] = Field(
        "auto",
        description="how networks are run; auto: what a measurement on a worker finds fastest, once a search; "
        "winograd: for float32 on CPUs",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 on GPUs if it pays")
    prefix_mb: float = Field(
        256, ge=0, description="memory for states that later plans may share, a worker and once more a node; 0: none"
    )
    address: str | None = Field(None, description="of a running Ray cluster; null starts one on this machine")


class TrackingSettings(Settings):
    """Where MLflow is.  `null` keeps the search out of MLflow."""

    uri: str | None = "sqlite:///runs/mlflow.db"
    experiment: str | None = Field(None, description="default: family and space")

    _no_secret = field_validator("uri")(without_literal_secret)


class RunSettings(TrainerSettings):
    """All settings of a supernet and of a search over it."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    directory: str = Field(
        "runs", description="the run lives in DIRECTORY/NAME; a folder, or a URI such as s3://b/runs"
    )
    supernet: str | None = Field(None, description="default: DIRECTORY/NAME/supernet")
    sampler: SamplerSettings = SamplerSettings()
    space: SpaceSettings = SpaceSettings()
    variation: VariationSettings = VariationSettings()
    initial_plans: dict[str, int] = Field(
        {"uniform": 4, "gap": 8, "monotone": 8, "fewer_steps": 8},
        description="plans of the first generation, by kind; fewer_steps only where steps may be skipped",
    )
    screen: ScreenSettings = ScreenSettings()
    budget: BudgetSettings = BudgetSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    confirm: ConfirmSettings = ConfirmSettings()
    workers: WorkerSettings = WorkerSettings()
    storage: str | None = Field(None, description="Optuna storage: null (SQLite in the search), journal, or a URL")
    tracking: TrackingSettings = TrackingSettings()
    search_seed: int = Field(0, ge=0)

    _no_secret = field_validator("storage", "directory", "supernet")(without_literal_secret)

    @field_validator("training")
    @classmethod
    def _no_secret_in_checkpoints(cls, training: TrainingSettings) -> TrainingSettings:
        without_literal_secret(training.checkpoints)
        return training

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
    def _steps_exist(self) -> Self:
        if self.sampler.steps > self.diffusion.steps:
            raise ValueError(f"sampler.steps {self.sampler.steps} exceeds diffusion.steps {self.diffusion.steps}")
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
    def run_directory(self) -> Path:
        return Path(self.directory) / self.name

    @property
    def run_place(self) -> str:
        """The run's directory as it was given, which may be a URI."""
        return joined(self.directory, self.name) if is_uri(self.directory) else str(self.run_directory)

    @property
    def supernet_directory(self) -> Path:
        return Path(self.supernet) if self.supernet else self.run_directory / "supernet"

    @property
    def search_directory(self) -> Path:
        return self.run_directory / "search"


class _Loader(yaml.SafeLoader):
    """YAML as people and JSON write numbers: 1e-3 is one, although YAML 1.1 takes it for a word."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(text: str) -> Any:
    """The content of a YAML text.  Raises yaml.YAMLError."""
    return yaml.load(text, _Loader)


def parse_constraint(text: str) -> tuple[str, str, float]:
    """`gflops <= 2.0` -> (gflops, <=, 2.0)."""
    match = _CONSTRAINT.fullmatch(text)
    if match is None or match[1] not in OBJECTIVES:
        raise ValueError(f"constraint {text!r}; constraints look like 'gflops <= 2.0', over {', '.join(OBJECTIVES)}")
    return match[1], match[2], float(match[3])


def load_settings(path: Path, overrides: Sequence[str] = ()) -> RunSettings:
    """The settings of a YAML file with `key=value` overrides (`search_seed=3`, `budget.trials=200`)."""
    path = Path(path)
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(str(p) for p in sorted(path.parent.glob("*.yaml"))[:8]) if path.parent.is_dir() else ""
        raise InputError(f"no settings file {path}" + (f"; here are: {known}" if known else "")) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read: {error}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds {type(content).__name__}; a mapping of settings was expected")
    try:
        return settings_from(content, overrides)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def settings_from(content: Mapping[str, Any], overrides: Sequence[str] = ()) -> RunSettings:
    """Settings from a plain mapping and overrides."""
    merged = _copy(content)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise InputError(f"--set {override!r}; an override looks like budget.trials=200")
        _put(merged, key.strip().split("."), _yaml_value(value), override)
    return validate(RunSettings, merged)


def save_settings(settings: Settings, path: Path) -> None:
    """The resolved settings as YAML."""
    write_text(path, yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def _copy(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, dict) else value for key, value in content.items()}


def _yaml_value(text: str) -> Any:
    try:
        return read_yaml(text)
    except yaml.YAMLError:
        return text


def _put(target: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    for key in keys[:-1]:
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise InputError(f"--set {override!r}: {key} is a single value, not a group of settings")
    target[keys[-1]] = value
