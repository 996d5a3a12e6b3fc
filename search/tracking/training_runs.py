"""Write a training or a second stage as one MLflow run: losses, sample grids, costs, and the digest at its end."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stepfront.search.config import RunSettings
from stepfront.search.mlflow_runs.client import artifact_folder
from stepfront.search.mlflow_runs.copies import read_own_note
from stepfront.search.mlflow_runs.mlflow_run import RunStart, dataset_input, find_or_begin, finite_metrics
from stepfront.search.mlflow_runs.run_context import context_tags
from stepfront.search.mlflow_runs.written import WrittenTraining
from stepfront.search.records.run_directory import SETTINGS_FILE
from stepfront.search.tracking.experiments import training_experiment
from stepfront.tables.adaptation import adaptation_note, group_costs
from stepfront.tables.schema import ADAPTATION
from stepfront.trainers.data import ImageData
from stepfront.trainers.networks.card import CARD_FILE, SupernetCard, read_card
from stepfront.trainers.training.checkpoint_file import NO_EFFECT_ON_WEIGHTS
from stepfront.trainers.validation import settings_json

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

TRAINING_TABLE, SAMPLES_FOLDER = "training.parquet", "samples"
"""The table has one row per checkpoint: step, time (ms since 1970), images_per_second, learning_rate and, per width,
loss/WIDTH.  The folder has a grid of samples per checkpoint."""


class TrainingRun:
    """Write the one run of a supernet, found or begun, below the run `parent` where there is one."""

    def __init__(
        self, client: MlflowClient, settings: RunSettings, data: ImageData, directory: Path, parent: str = ""
    ) -> None:
        self._client, self._directory = client, directory
        written = read_own_note(directory, WrittenTraining, settings.tracking.uri)
        written.training_id = written.training_id or uuid.uuid4().hex[:12]
        written.save(directory)  # before the run is made: a driver killed in between finds it by this id
        self._run, _ = find_or_begin(client, written, _start(settings, data, written.training_id))
        written.save(directory)
        run = client.get_run(self._run.run_id)
        if parent and PARENT not in run.data.tags:
            client.set_tag(self._run.run_id, PARENT, parent)
        self._status = run.info.status
        logged = client.get_metric_history(self._run.run_id, "learning_rate") if run.data.metrics else []
        self._last_step = max((metric.step for metric in logged), default=0)

    def update(self, table: pd.DataFrame, status: str) -> None:
        """Write the checkpoints that the run lacks, and the status: RUNNING, FINISHED or KILLED."""
        rows = table[table["step"] > self._last_step]
        if self._status != "RUNNING" and (len(rows) or status != self._status):
            self._client.update_run(self._run.run_id, status="RUNNING")  # the training was continued
            self._status = "RUNNING"
        self._log_grids([int(step) for step in rows["step"]])
        metrics = []
        for row in rows.to_dict("records"):
            step, milliseconds = int(row.pop("step")), int(row.pop("time"))
            metrics += finite_metrics(row, step, milliseconds)
        self._run.log(metrics)
        self._last_step = int(table["step"].max())
        if status != "RUNNING" and self._status == "RUNNING":
            self._end(status)

    def _log_grids(self, steps: list[int]) -> None:
        from PIL import Image

        for step in steps:
            grid = self._directory / SAMPLES_FOLDER / grid_name(step)
            if grid.exists():
                with Image.open(grid) as image:
                    picture = np.asarray(image.convert("RGB"))
                self._client.log_image(self._run.run_id, picture, key=SAMPLES_FOLDER, step=step)

    def _end(self, status: str) -> None:
        paths = [self._directory / name for name in (CARD_FILE, SETTINGS_FILE, TRAINING_TABLE)]
        self._run.log_files([path for path in paths if path.exists()])
        if status == "FINISHED":  # the searches of this supernet have the same tag
            self._run.log(tags={"supernet_digest": read_card(self._directory).digest})
        self._run.end(status)
        self._status = status


PARENT = "mlflow.parentRunId"
"""The tag that nests a run below another one in MLflow's pages."""

MAX_NOTE_CHARACTERS = 7900
"""Characters of a run's description; MLflow takes 8,000."""


class AdaptationRun:
    """Write the one run of a second stage from the supernet of `base`, found or begun.

    The groups have runs of their own, below it.
    """

    def __init__(
        self,
        client: MlflowClient,
        settings: RunSettings,
        params: Mapping[str, Any],
        directory: Path,
        base: SupernetCard,
    ) -> None:
        self._client, self._directory = client, directory
        written = read_own_note(directory, WrittenTraining, settings.tracking.uri)
        written.training_id = written.training_id or uuid.uuid4().hex[:12]
        written.save(directory)  # before the run is made: a driver killed in between finds it by this id
        tags = {"dataset": base.data_name, "fingerprint": base.data_fingerprint}
        start = RunStart(
            experiment=training_experiment(settings),
            artifacts=artifact_folder(settings.tracking.uri),
            name=settings.name,
            identity={"kind": "training", "training_id": written.training_id},
            tags=context_tags() | tags | {"adapted_from": base.digest},
            params=params,
            dataset=dataset_input(settings, base.data_name, base.data_fingerprint, "training", {}),
        )
        self._run, _ = find_or_begin(client, written, start)
        written.save(directory)
        if client.get_run(self.run_id).info.status == "KILLED":  # it was continued
            self.set_status("RUNNING")

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return self._run.run_id

    def set_status(self, status: str) -> None:
        """Say that the groups train (RUNNING), or that they were interrupted (KILLED)."""
        self._client.update_run(self.run_id, status=status)

    def write(self, table: pd.DataFrame) -> None:
        """Write losses, costs, description and files, and end the run, unless that is done."""
        run, card = self._client.get_run(self.run_id), read_card(self._directory)
        noted = run.data.tags.get("supernet_digest")
        if run.info.status == "FINISHED" and noted == card.digest:
            return
        note = adaptation_note(table)[:MAX_NOTE_CHARACTERS]
        # A call that was interrupted before it wrote the tags may have written the metrics.
        if "images" not in run.data.metrics or noted not in (None, card.digest):
            self._run.log(_metrics_of(table, card))
        self._run.log(tags={"mlflow.note.content": note, "supernet_digest": card.digest})
        self._run.log_files([self._directory / name for name in (CARD_FILE, SETTINGS_FILE, ADAPTATION)])
        self._run.end("FINISHED")


class AdaptationRuns:
    """Open the run of a second stage in one thread at a time: groups that train at once begin it in threads."""

    def __init__(self, settings: RunSettings, params: Mapping[str, Any], directory: Path, base: SupernetCard) -> None:
        self._given = (settings, params, directory, base)
        self._lock = threading.Lock()

    def open(self, client: MlflowClient) -> AdaptationRun:
        """Return the run, found or begun."""
        with self._lock:
            return AdaptationRun(client, *self._given)

    def run_id(self, client: MlflowClient) -> str:
        """Return the id of the run, found or begun."""
        return self.open(client).run_id


def _metrics_of(table: pd.DataFrame, card: SupernetCard) -> list[Metric]:
    costs = group_costs(table)
    totals = {"tflops": costs["gflops"].sum() / 1000, "images": costs["images"].sum()}
    totals |= {"seconds": costs["seconds"].sum(min_count=len(costs))}
    totals |= {f"loss/{float(width):g}": loss for width, loss in card.made_with["held_out_losses"].items()}
    metrics = finite_metrics(totals)
    for row in table.to_dict("records"):  # a chart of them has the groups on its axis
        losses = {f"{name}/{row['width']:g}": row[name] for name in ("loss_before", "loss_after")}
        metrics += finite_metrics(losses, int(row["group"]))
    return metrics


def _start(settings: RunSettings, data: ImageData, training_id: str) -> RunStart:
    profile = {"images": len(data.images), "held_out": len(data.held_out_images)}
    return RunStart(
        experiment=training_experiment(settings),
        artifacts=artifact_folder(settings.tracking.uri),
        name=settings.name,
        identity={"kind": "training", "training_id": training_id},
        tags=context_tags() | {"dataset": data.name, "fingerprint": data.fingerprint},
        params=training_params(settings),
        dataset=dataset_input(settings, data.name, data.fingerprint, "training", profile),
    )


def training_params(settings: RunSettings) -> dict[str, Any]:
    """Return the settings that decide the weights, as group.key.

    MLflow refuses to change a parameter, and these can't change when a training continues.
    """
    content = settings_json(settings)
    sizes = content["network"].pop("dit")
    if settings.network.family == "dit":
        content["network"] |= {f"dit.{key}": value for key, value in sizes.items()}
    return {
        f"{group}.{key}": value
        for group in ("network", "diffusion", "training")
        for key, value in content[group].items()
        if key not in NO_EFFECT_ON_WEIGHTS
    } | {"data.flip": settings.data.flip}


def grid_name(step: int) -> str:
    """Return the file name of a step's samples; names sort as steps do."""
    return f"step-{step:07d}.png"
