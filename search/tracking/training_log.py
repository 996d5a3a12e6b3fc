"""Record a training: training.parquet, grids of samples, and its MLflow run.

The table is complete without MLflow.  The run is brought in line with it at every checkpoint, in a thread that the
training never waits for.  The next checkpoint, or the next `stepfront train`, makes up for a server that did not
answer.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pandas as pd

from stepfront.search.config import RunSettings
from stepfront.search.mlflow_runs.background import BackgroundWriter
from stepfront.search.mlflow_runs.client import tracking_uri
from stepfront.search.tracking.training_runs import SAMPLES_FOLDER, TRAINING_TABLE, TrainingRun, grid_name
from stepfront.tables.parquet import read_table, write_table
from stepfront.trainers.data import ImageData
from stepfront.trainers.data.image_grid import save_grid
from stepfront.trainers.diffusion.preview import COLUMNS
from stepfront.trainers.training.trainer import TrainingReport


class TrainingLog:
    """Record the checkpoints of a training in `directory`."""

    def __init__(self, settings: RunSettings, data: ImageData, directory: Path) -> None:
        self._directory, self._path = directory, directory / TRAINING_TABLE
        uri = tracking_uri(settings.tracking.uri)
        self._writer = BackgroundWriter(uri, lambda client: TrainingRun(client, settings, data, directory))

    def add(self, report: TrainingReport) -> None:
        """Record the report of a checkpoint; other reports are ignored."""
        if not report.saved:
            return
        if report.samples is not None:
            save_grid(report.samples, self._directory / SAMPLES_FOLDER / grid_name(report.step), COLUMNS)
        row = {
            "step": report.step,
            "time": int(1000 * time.time()),
            "images_per_second": report.images_per_second,
            "learning_rate": report.learning_rate,
        } | {f"loss/{width:g}": loss for width, loss in report.losses.items()}
        row |= {f"loss/{size}": loss for size, loss in report.depth_losses.items()}
        table = pd.DataFrame([row])
        if self._path.exists():
            before = self._table()
            # A checkpoint that was lost is written again, and its row with it.
            table = pd.concat([before[before["step"] < report.step], table], ignore_index=True)
        write_table(table, self._path)
        if not self._writer.busy:
            self._writer.start(lambda run: run.update(self._table(), "RUNNING"))

    def close(self, finished: bool, timeout: float = 120) -> str:
        """Bring MLflow in line and end the run, and return the problem, if any.

        `timeout`, in seconds, is for the checkpoint that is being written and again for the end.
        """
        if not self._path.exists():
            return ""
        status = "FINISHED" if finished else "KILLED"
        self._writer.wait(timeout)
        if not self._writer.busy:
            self._writer.start(lambda run: run.update(self._table(), status))
        return self._writer.wait(timeout)

    def _table(self) -> pd.DataFrame:
        return read_table(self._path)


def warn_of(problem: str, verb: str = "train") -> None:
    """Log a warning when MLflow was not written; the training is complete without it."""
    if problem:
        logging.getLogger("stepfront").warning(
            "MLflow was not written: %s; run `stepfront %s` again to write it", problem, verb
        )
