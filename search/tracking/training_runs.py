"""What a training leaves to look at: its reports in; training.parquet, grids of samples and an MLflow run out.

The table is the truth; MLflow, written in a thread that the training never waits for, is brought in line with it at
every checkpoint.  What an absent server missed is made good by the next one, or by the next `stepfront train`.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stepfront.addresses import redacted
from stepfront.errors import InputError
from stepfront.files import read_json, write_json
from stepfront.search.config import RunSettings
from stepfront.search.records.run_directory import SETTINGS_FILE
from stepfront.search.tracking.mirror import STATE_FILE, artifact_folder, make_client, set_environment, tracking_uri
from stepfront.tables.parquet import read_table, write_table
from stepfront.trainers.config import settings_json
from stepfront.trainers.data import ImageData
from stepfront.trainers.data.image_grid import save_grid
from stepfront.trainers.diffusion.preview import COLUMNS
from stepfront.trainers.networks.card import CARD_FILE, read_card
from stepfront.trainers.training.checkpoint_file import NO_EFFECT_ON_WEIGHTS
from stepfront.trainers.training.trainer import TrainingReport

if TYPE_CHECKING:
    from mlflow import MlflowClient

TRAINING, SAMPLES = "training.parquet", "samples"
"""A row a checkpoint: step, time (ms since 1970), images_per_second, learning_rate, and loss/WIDTH for each width."""

MOST_METRICS = 900
"""In one request; MLflow takes a thousand."""


@dataclass
class WrittenTraining:
    """The MLflow run of a supernet, as noted in mlflow.json beside it."""

    training_id: str = ""
    experiment_id: str = ""
    run_id: str = ""


class TrainingLog:
    """Takes reports while a training runs.  `problem` says why MLflow was not written the last time, if it was not."""

    def __init__(self, settings: RunSettings, data: ImageData, directory: Path) -> None:
        set_environment()
        self.problem = ""
        self._settings, self._data, self._directory = settings, data, directory
        self._uri = tracking_uri(settings.tracking.uri)
        self._thread: threading.Thread | None = None
        self._written: MlflowTraining | None = None

    def add(self, report: TrainingReport) -> None:
        """Takes in a report of a checkpoint; others have nothing new."""
        if not report.saved:
            return
        if report.samples is not None:
            save_grid(report.samples, self._directory / SAMPLES / grid_name(report.step), COLUMNS)
        row = {
            "step": report.step,
            "time": int(1000 * time.time()),
            "images_per_second": report.images_per_second,
            "learning_rate": report.learning_rate,
        } | {f"loss/{width:g}": loss for width, loss in report.losses.items()}
        table = pd.DataFrame([row])
        if (self._directory / TRAINING).exists():
            before = self._table()
            # A checkpoint that was lost is written again, and its row with it.
            table = pd.concat([before[before["step"] < report.step], table], ignore_index=True)
        write_table(table, self._directory / TRAINING)
        if self._thread is None or not self._thread.is_alive():
            self._start("RUNNING")

    def close(self, finished: bool, timeout: float = 120) -> str:
        """Brings MLflow in line, waiting `timeout` seconds at most; what went wrong."""
        if self._uri is None or not (self._directory / TRAINING).exists():
            return ""
        if self._thread is not None:
            self._thread.join(timeout)
        if self._thread is None or not self._thread.is_alive():
            self._start("FINISHED" if finished else "KILLED")
            assert self._thread is not None
            self._thread.join(timeout)
        return f"MLflow at {redacted(self._uri)} is too slow" if self._thread.is_alive() else self.problem

    def _start(self, status: str) -> None:
        if self._uri is None:
            return
        self._thread = threading.Thread(target=self._write, args=(status,), name="mlflow", daemon=True)
        self._thread.start()

    def _write(self, status: str) -> None:
        try:
            if self._written is None:
                self._written = MlflowTraining(make_client(self._uri), self._settings, self._data, self._directory)
            self._written.bring_in_line(self._table(), status)
            self.problem = ""
        except Exception as error:  # whatever MLflow, its database or its server raise must not end a training
            self._written = None
            line = next(iter(redacted(error).splitlines()), type(error).__name__)
            self.problem = f"MLflow at {redacted(self._uri)}: {line}"

    def _table(self) -> pd.DataFrame:
        return read_table(self._directory / TRAINING)


def grid_name(step: int) -> str:
    """The file of a step's samples; names sort as steps do."""
    return f"step-{step:07d}.png"


class MlflowTraining:
    """The one run of a supernet, found or begun, and how far it is written."""

    def __init__(self, client: MlflowClient, settings: RunSettings, data: ImageData, directory: Path) -> None:
        self._client, self._settings, self._data, self._directory = client, settings, data, directory
        self.noted = _read_note(directory)
        if not self._known():
            self._find_or_begin()
        run = client.get_run(self.noted.run_id)
        self._status = run.info.status
        told = client.get_metric_history(self.noted.run_id, "learning_rate") if run.data.metrics else []
        self._last = max((metric.step for metric in told), default=0)

    def bring_in_line(self, table: pd.DataFrame, status: str) -> None:
        """Writes the checkpoints that the run lacks, and how the training stands."""
        from mlflow.entities import Metric
        from PIL import Image

        rows = table[table["step"] > self._last]
        if self._status != "RUNNING" and (len(rows) or status != self._status):
            self._set_status("RUNNING")  # it goes on
        for step in rows["step"]:
            grid = self._directory / SAMPLES / grid_name(int(step))
            if grid.exists():
                with Image.open(grid) as image:
                    picture = np.asarray(image.convert("RGB"))
                self._client.log_image(self.noted.run_id, picture, key=SAMPLES, step=int(step))
        names = [name for name in table.columns if name not in ("step", "time")]
        metrics = [
            Metric(name, float(row[name]), int(row["time"]), int(row["step"]))
            for row in rows.to_dict("records")
            for name in names
            if np.isfinite(row[name])
        ]
        for first in range(0, len(metrics), MOST_METRICS):
            self._client.log_batch(self.noted.run_id, metrics=metrics[first : first + MOST_METRICS])
        self._last = int(table["step"].max())
        if status != "RUNNING" and self._status == "RUNNING":
            self._end(status)

    def _end(self, status: str) -> None:
        for name in (CARD_FILE, SETTINGS_FILE, TRAINING):
            if (self._directory / name).exists():
                self._client.log_artifact(self.noted.run_id, str(self._directory / name))
        if status == "FINISHED":
            digest = read_card(self._directory).digest
            self._client.set_tag(self.noted.run_id, "supernet_digest", digest)  # searches of it have the same tag
        self._client.set_terminated(self.noted.run_id, status)
        self._status = status

    def _set_status(self, status: str) -> None:
        self._client.update_run(self.noted.run_id, status=status)
        self._status = status

    def _known(self) -> bool:
        from mlflow.exceptions import MlflowException

        if not self.noted.run_id:
            return False
        try:
            self._client.get_run(self.noted.run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False  # another tracking store: begin anew there
        return True

    def _find_or_begin(self) -> None:
        settings, client = self._settings, self._client
        name = experiment_name(settings)
        experiment = client.get_experiment_by_name(name)
        place = artifact_folder(settings.tracking.uri)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(name, place)
        # Noted before the run is made: a driver killed in between finds the run by its tag.
        self.noted = WrittenTraining(self.noted.training_id or uuid.uuid4().hex[:12], experiment_id)
        write_json(self._directory / STATE_FILE, asdict(self.noted))
        which = f"tags.training_id = '{self.noted.training_id}'"
        found = client.search_runs([experiment_id], which, max_results=1)
        self.noted.run_id = found[0].info.run_id if found else self._begin()
        write_json(self._directory / STATE_FILE, asdict(self.noted))

    def _begin(self) -> str:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        settings, data = self._settings, self._data
        tags = {"kind": "training", "training_id": self.noted.training_id}
        tags |= {"dataset": data.name, "fingerprint": data.fingerprint}
        run_id = self._client.create_run(self.noted.experiment_id, run_name=settings.name, tags=tags).info.run_id
        params = [Param(name, str(value)[:5900]) for name, value in parameters(settings).items()]
        self._client.log_batch(run_id, params=params)
        source = {"format": settings.data.format, "path": settings.data.path, "fingerprint": data.fingerprint}
        profile = json.dumps({"images": len(data.images), "held_out": len(data.held_out_images)})
        given = Dataset(data.name, data.fingerprint[:36], "stepfront", json.dumps(source), profile=profile)
        self._client.log_inputs(run_id, [DatasetInput(given, [InputTag("mlflow.data.context", "training")])])
        return run_id


def experiment_name(settings: RunSettings) -> str:
    """Trainings of one family share an experiment, apart from the searches': the UI's charts are an experiment's."""
    return f"{settings.tracking.experiment or f'stepfront {settings.network.family}'}, training"


def parameters(settings: RunSettings) -> dict[str, Any]:
    """What decides the weights, as group.key; MLflow refuses to change a parameter, and these can't change."""
    content = settings_json(settings)
    return {
        f"{group}.{key}": value
        for group in ("network", "diffusion", "training")
        for key, value in content[group].items()
        if key not in NO_EFFECT_ON_WEIGHTS
    } | {"data.flip": settings.data.flip}


def _read_note(directory: Path) -> WrittenTraining:
    try:
        return WrittenTraining(**read_json(directory / STATE_FILE, "MLflow state"))
    except (InputError, TypeError):
        return WrittenTraining()  # none yet, or damaged: a run is begun


def warn_of(problem: str) -> None:
    """Says that MLflow was not written, where it was not; the training is whole without it."""
    if problem:
        logging.getLogger("stepfront").warning("MLflow was not written: %s; `stepfront train` again does it", problem)
