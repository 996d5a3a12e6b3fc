"""Define and load the settings of a run: one YAML file and `--set key=value` overrides become a frozen object.

Every key has a description.  docs/settings.md is generated from them by `make docs`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import AfterValidator, Field, field_validator, model_validator

from stepfront.addresses import is_uri, joined, without_literal_secret
from stepfront.errors import InputError
from stepfront.files import write_text
from stepfront.plugins import PROXIES
from stepfront.trainers.config import (
    FeatureSettings,
    SamplerSettings,
    Settings,
    TrainerSettings,
    TrainingSettings,
    validate,
)

INITIAL_PLAN_KINDS = ("uniform", "cuts", "monotone", "snr", "gap", "fewer_steps", "random")
OBJECTIVES = ("fid", "gflops", "latency_ms")
_CONSTRAINT = re.compile(r"\s*(\w+)\s*(<=|>=)\s*([0-9.eE+-]+)\s*")


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
    least_tau: float = Field(
        0.5, ge=-1, le=1, description="Kendall's tau of proxy and FID below which the proxy is not used"
    )


class BudgetSettings(Settings):
    """When a search ends: at the first limit that it reaches."""

    trials: int | None = Field(120, ge=1, description="number of evaluations, failed ones included")
    minutes: float | None = Field(None, gt=0, description="running time of the search, without pauses")
    tflops: float | None = Field(None, gt=0, description="network FLOPs of all evaluations, in 1e12")
    patience: int | None = Field(
        None, ge=1, description="generations in a row without growth of the hypervolume beyond noise"
    )

    @model_validator(mode="after")
    def _some_limit(self) -> Self:
        if self.trials is None and self.minutes is None and self.tflops is None and self.patience is None:
            raise ValueError("a budget needs a limit: trials, minutes, tflops or patience")
        return self


class EvaluationSettings(Settings):
    """How a plan is scored."""

    images: int = Field(512, ge=16, description="images per score; more images give a less noisy score")
    batch: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="images per network call. auto: the largest batch that fits on a GPU, 256 on a CPU"
    )
    noise_seed: int = Field(0, ge=0, description="seed of the noise that all plans are scored on")
    noise_repeats: int = Field(
        4,
        ge=0,
        description="number of extra noise seeds that full width and a middle width are scored on, to know how "
        "large a difference is noise; 0: not measured",
    )
    objectives: tuple[str, ...] = Field(
        ("fid", "gflops"), description="what is minimised: fid, and one or both of gflops and latency_ms"
    )
    constraints: tuple[str, ...] = Field((), description="limits on fid, gflops or latency_ms, such as 'gflops <= 2.0'")

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
        description="feature set, as in `features.name`, and not the search's own. auto: the first of random and "
        "degradations that passes its examination and is not the search's own",
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


class WorkerSettings(Settings):
    """The processes that evaluate plans."""

    count: int | None = Field(None, ge=1, description="number of workers; null: as many as the cluster has room for")
    cpus: float = Field(1, gt=0, description="CPUs per worker")
    gpus: float = Field(0, ge=0, description="GPUs per worker; 0.5 puts two workers on each GPU")
    attempts: int = Field(3, ge=1, description="number of attempts per plan when workers fail")
    limit_minutes: float | None = Field(
        None,
        gt=0,
        description="time limit per evaluation; null: ten minutes plus 20 times the latency measured at full width",
    )
    ahead: Literal["auto", "always", "never"] = Field(
        "auto",
        description="whether a worker gets its next plan before it finishes the current one. auto: with several "
        "workers and evaluations under 1.5 s. A budget of minutes may then end one evaluation later",
    )
    engine: Literal["auto", "plain", "channels_last", "winograd", "compiled"] = Field(
        "auto",
        description="how networks are run. auto: the fastest in a measurement on a worker, once per search; "
        "winograd: float32 on CPUs only",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="number format of the networks. auto: bfloat16 on GPUs where it is faster"
    )
    prefix_mb: float = Field(
        256, ge=0, description="memory for the prefix cache, per worker and once more per node; 0: no cache"
    )
    address: str | None = Field(None, description="address of a running Ray cluster; null: start Ray on this machine")


class TrackingSettings(Settings):
    """Where trials and fronts are recorded in MLflow."""

    uri: str | None = Field(
        "sqlite:///runs/mlflow.db", description="MLflow tracking URI: a server or a database file; null: no MLflow"
    )
    experiment: str | None = Field(
        None, description="name of the MLflow experiment; null: made from network family and search space"
    )

    _no_secret = field_validator("uri")(without_literal_secret)


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
    sampler: SamplerSettings = SamplerSettings()
    space: SpaceSettings = SpaceSettings()
    variation: VariationSettings = VariationSettings()
    initial_plans: dict[str, int] = Field(
        {"uniform": 4, "gap": 8, "monotone": 8, "fewer_steps": 8},
        description="number of plans per kind in the first generation: uniform, cuts, monotone, snr, gap, fewer_steps "
        "(where steps may be skipped), random, front:SEARCH",
    )
    screen: ScreenSettings = ScreenSettings()
    budget: BudgetSettings = BudgetSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    confirm: ConfirmSettings = ConfirmSettings()
    workers: WorkerSettings = WorkerSettings()
    storage: str | None = Field(
        None, description="Optuna storage: a database URL, or journal; null: SQLite in the search directory"
    )
    tracking: TrackingSettings = TrackingSettings()
    search_seed: int = Field(0, ge=0, description="seed of the search's random choices")

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


def _local(place: str) -> Path:
    if is_uri(place):
        raise InputError(f"{place} is a URI where a local folder is needed; work in a local copy of it")
    return Path(place)


class _Loader(yaml.SafeLoader):
    """Safe YAML loader that reads 1e-3 as a number; YAML 1.1 reads it as a word."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(text: str) -> Any:
    """Return the content of a YAML text.

    Raises yaml.YAMLError when the text is not YAML.
    """
    return yaml.load(text, _Loader)


def parse_constraint(text: str) -> tuple[str, str, float]:
    """Split `gflops <= 2.0` into (gflops, <=, 2.0).

    Raises ValueError for anything else.
    """
    match = _CONSTRAINT.fullmatch(text)
    if match is None or match[1] not in OBJECTIVES:
        raise ValueError(f"constraint {text!r}; constraints look like 'gflops <= 2.0', over {', '.join(OBJECTIVES)}")
    return match[1], match[2], float(match[3])


def load_settings(path: Path, overrides: Sequence[str] = ()) -> RunSettings:
    """Return the settings of a YAML file with `key=value` overrides, such as `budget.trials=200`.

    Raises InputError with one line when the file is missing, is not YAML or holds an invalid setting.
    """
    path = Path(path)
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(str(p) for p in sorted(path.parent.glob("*.yaml"))[:8]) if path.parent.is_dir() else ""
        there = f"give one of those there: {known}" if known else "give a YAML file, such as configs/digits.yaml"
        raise InputError(f"no settings file {path}; {there}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read: {error}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if content is None:
        raise InputError(f"{path} is empty; a mapping of settings was expected, such as `name: digits`")
    if not isinstance(content, dict):
        raise InputError(f"{path} holds {type(content).__name__}; a mapping of settings was expected")
    return settings_from(content, overrides, f"{path}: ")


def settings_from(content: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "") -> RunSettings:
    """Return the settings of a plain mapping with `key=value` overrides.

    Raises InputError with one line when a setting is invalid.  The line begins with `source` when the mapping is at
    fault, and with `--set` when an override is.
    """
    merged = _copy(content)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise InputError(f"--set {override!r}; an override looks like budget.trials=200")
        _put(merged, key.strip().split("."), _yaml_value(value), override)
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
