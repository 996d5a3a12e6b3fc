"""Define the settings of the processes that evaluate plans, and of where results are recorded."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from stepfront.addresses import only_address
from stepfront.trainers.validation import Settings


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


class TrackingSettings(Settings):
    """Where trials and fronts are recorded in MLflow."""

    uri: str | None = Field(
        "sqlite:///runs/mlflow.db", description="MLflow tracking URI: a server or a database file; null: no MLflow"
    )
    experiment: str | None = Field(
        None, description="name of the MLflow experiment; null: made from network family and search space"
    )

    _address = field_validator("uri")(only_address)
