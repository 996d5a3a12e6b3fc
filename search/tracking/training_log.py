"""Record a training: training.parquet, grids of samples, and its MLflow run.

The table is complete without MLflow.  The run is brought in line with it at every checkpoint, in a thread that the
training never waits for.  The next checkpoint, or the next `stepfront train`, makes up for a server that did not
answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from stepfront.search.config import RunSettings
from stepfront.search.mlflow_runs.background import BackgroundWriter
from stepfront.search.mlflow_runs.client import tracking_uri
from stepfront.search.tracking.training_runs import SAMPLES_FOLDER, TRAINING_TABLE, TrainingRun, grid_name
from stepfront.tables.parquet import read_table, write_table
from stepfront.trainers.data import ImageData
from stepfront.trainers.data.image_grid import save_grid
from stepfront.trainers.diffusion.preview import COLUMNS
from stepfront.trainers.training.checkpoint_file import CHECKPOINT_FILE, rows_of
from stepfront.trainers.training.trainer import TrainingReport

if TYPE_CHECKING:
    from mlflow import MlflowClient

ParentRun = Callable[["MlflowClient"], str]
"""Returns the id of the run that a training's run is nested below; an empty one where there is none."""


def no_parent(client: MlflowClient) -> str:
    """Return that a training's run is nested below none."""
    return ""


class TrainingLog:
    """Record the checkpoints of a training in `directory`; `parent` finds the run that its run is nested below."""

    def __init__(
        self,
        settings: RunSettings,
        data: ImageData,
        directory: Path,
        parent: ParentRun = no_parent,
    ) -> None:
        self._directory, self._path = directory, directory / TRAINING_TABLE
        uri = tracking_uri(settings.tracking.uri)
        self._writer = BackgroundWriter(
            uri, lambda client: TrainingRun(client, settings, data, directory, parent(client))
        )

    def add(self, report: TrainingReport) -> None:
        """Record the report of a checkpoint; other reports are ignored."""
        if not report.saved:
            return
        if report.samples is not None:
            save_grid(report.samples, self._directory / SAMPLES_FOLDER / grid_name(report.step), COLUMNS)
        # A checkpoint that was lost is written again, and its row with it.
        rows = [row for row in self._rows() if row["step"] < report.step]
        self._write([*rows, report.row])
        if not self._writer.busy:
            self._writer.start(lambda run: run.update(self._table(), "RUNNING"))

    def close(self, finished: bool, timeout: float = 120) -> str:
        """Bring MLflow in line and end the run, and return the problem, if any.

        `timeout`, in seconds, is for the checkpoint that is being written and, where that was written, again for the
        end.
        """
        self.complete()
        if not self._path.exists():
            return ""
        status = "FINISHED" if finished else "KILLED"
        problem = self._writer.wait(timeout)
        if self._writer.busy:
            return problem
        self._writer.start(lambda run: run.update(self._table(), status))
        return self._writer.wait(timeout)

    def complete(self) -> None:
        """Write the rows that the table lacks and the checkpoint has.

        A worker saves its checkpoint whether or not the driver is there to take its report.
        """
        rows = self._rows()
        if rows and (not self._path.exists() or len(rows) > len(self._table())):
            self._write(rows)

    def _rows(self) -> list[dict[Any, Any]]:
        """Return the rows of the table, and those of the checkpoint at other steps."""
        found: dict[int, dict[Any, Any]] = {int(row["step"]): row for row in rows_of(self._directory / CHECKPOINT_FILE)}
        if self._path.exists():
            found |= {int(row["step"]): dict(row) for row in self._table().to_dict("records")}
        return [found[step] for step in sorted(found)]

    def _write(self, rows: Sequence[Mapping[Any, Any]]) -> None:
        write_table(pd.DataFrame(rows), self._path)

    def _table(self) -> pd.DataFrame:
        return read_table(self._path)


def warn_of(problem: str, verb: str = "train") -> None:
    """Log a warning when MLflow was not written; the training is complete without it."""
    if problem:
        logging.getLogger("stepfront").warning(
            "MLflow was not written: %s; run `stepfront %s` again to write it", problem, verb
        )
