"""Define the settings of the processes that evaluate plans, and of where results are recorded."""

from __future__ import annotations

from string import Formatter
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from stepfront.addresses import only_address
from stepfront.plugins import OBSERVERS
from stepfront.trainers.validation import Settings


class WorkerSettings(Settings):
    """The processes that evaluate plans, and that train the groups of `stepfront adapt`."""

    count: int | None = Field(None, ge=1, description="number of workers; null: as many as the cluster has room for")
    cpus: float = Field(
        1,
        gt=0,
        description="CPUs per worker, and its threads: the same for all, because they change a score's last digits",
    )
    gpus: float = Field(0, ge=0, description="GPUs per worker; 0.5 puts two workers on each GPU")
    accelerator_type: str | None = Field(
        None,
        pattern=r"^\S+$",
        description="type of GPU that workers run on, by Ray's name, such as H100 or A100; null: any",
    )
    attempts: int = Field(3, ge=1, description="number of attempts per plan when workers fail")
    limit_minutes: float | None = Field(
        None,
        gt=0,
        description="time limit per evaluation; null: ten minutes plus 20 times the latency measured at full width",
    )
    packet_seconds: float | None = Field(
        None,
        ge=0,
        description="seconds of evaluations that a worker gets at once, where there are several workers; results "
        "arrive together. null: 0.25 per worker and 5 at most; 0: one plan at a time",
    )
    engine: Literal["auto", "plain", "channels_last", "winograd", "compiled", "cuda_graphs", "compiled_cuda_graphs"] = (
        Field(
            "auto",
            description="how networks are run. auto: the fastest in a measurement on a worker, once per search; "
            "winograd: float32 on CPUs only; names with cuda_graphs: on GPUs only",
        )
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="number format of the networks. auto: bfloat16 on GPUs where it is faster"
    )
    prefix_mb: float = Field(
        256, ge=0, description="memory for the prefix cache, per worker and once more per node; 0: no cache"
    )
    address: str | None = Field(None, description="address of a running Ray cluster; null: start Ray on this machine")

    _address = field_validator("address")(only_address)

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_versions(cls, given: Any) -> Any:
        """Read `ahead`, which all earlier searches have in their settings: `never` was one plan at a time."""
        if not isinstance(given, dict) or given.get("ahead") not in ("auto", "always", "never"):
            return given
        kept = {key: value for key, value in given.items() if key != "ahead"}
        return ({"packet_seconds": 0} if given["ahead"] == "never" else {}) | kept

    @model_validator(mode="after")
    def _type_has_gpus(self) -> Self:
        if self.accelerator_type is not None and not self.gpus:
            raise ValueError(
                f"workers.accelerator_type {self.accelerator_type} needs workers.gpus above 0: it is a type of GPU"
            )
        return self


EXPERIMENT_PLACEHOLDERS = {"name", "space", "user"}


class TrackingSettings(Settings):
    """Where trials and fronts are recorded: MLflow, and observers of your own."""

    uri: str | None = Field(
        "sqlite:///runs/mlflow.db", description="MLflow tracking URI: a server or a database file; null: no MLflow"
    )
    experiment: str | None = Field(
        None,
        description="name of the MLflow experiment; {user}, {name} and {space} stand for your name on the server, the "
        "run's name, and network family with search space. null: stepfront {space}, which all users share",
    )

    observers: tuple[str, ...] = Field(
        (),
        description="loggers of your own that are shown each trial, such as ['my_parts:TensorBoard'] (docs/plugins.md)",
    )

    _address = field_validator("uri")(only_address)

    @field_validator("observers")
    @classmethod
    def _known_observers(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(OBSERVERS.check(name) for name in given)

    @field_validator("experiment")
    @classmethod
    def _known_placeholders(cls, given: str | None) -> str | None:
        try:
            names = {name for _, name, *_ in Formatter().parse(given or "") if name is not None}
        except ValueError:
            names = {""}
        if unknown := names - EXPERIMENT_PLACEHOLDERS:
            raise ValueError(
                f"unknown placeholder {{{min(unknown)}}} in {given!r}; possible: {{name}}, {{space}} and {{user}}"
            )
        return given
