"""What a training leaves: its table, grids of samples, and one MLflow run however often it is begun."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from stepfront.errors import InputError
from stepfront.search.config import RunSettings
from stepfront.search.driver.train import run_training
from stepfront.search.mlflow_runs.client import make_client
from stepfront.search.tracking.experiments import training_experiment
from stepfront.search.tracking.training_log import TrainingLog
from stepfront.search.tracking.training_runs import TRAINING_TABLE
from stepfront.trainers.data import ImageData, load_data
from stepfront.trainers.networks.card import read_card
from stepfront.trainers.training.trainer import TrainingReport
from tests.search.conftest import own_store, tiny_settings

SERIES = ("loss/0.25", "loss/0.5", "loss/1", "images_per_second", "learning_rate")


class KilledError(Exception):
    pass


@pytest.fixture
def settings(tmp_path: Path, empty_store: Path) -> RunSettings:
    return tiny_settings(tmp_path, own_store(tmp_path, empty_store))


GRIDS = {"samples_every": 1}


def train(settings: RunSettings, killed_at: int | None = None, fresh: bool = False) -> None:
    def report(state: TrainingReport) -> None:
        if state.step == killed_at:
            raise KilledError

    run_training(settings, fresh, report, lambda text: None)


def runs(settings: RunSettings) -> list[Any]:
    client = make_client(settings.tracking.uri)
    experiment = client.get_experiment_by_name(training_experiment(settings))
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def test_one_run_has_the_series_of_an_interrupted_and_continued_training(settings: RunSettings) -> None:
    settings = settings.model_copy(update={"training": settings.training.model_copy(update=GRIDS)})
    with pytest.raises(KilledError):
        train(settings, killed_at=7)
    (cut,) = runs(settings)
    assert cut.info.status == "KILLED"
    train(settings)
    client, directory = make_client(settings.tracking.uri), settings.supernet_directory
    (whole,) = runs(settings)
    assert whole.info.run_id == cut.info.run_id
    assert whole.info.status == "FINISHED"
    table = pd.read_parquet(directory / TRAINING_TABLE)
    assert list(table["step"]) == [5, 10, 12]
    assert (table["step"].dtype, table["time"].dtype) == ("int64", "int64")
    for name in SERIES:
        history = client.get_metric_history(whole.info.run_id, name)
        assert [(m.step, m.value, m.timestamp) for m in history] == list(
            zip(table["step"], table[name], table["time"], strict=True)
        )
    # The last row is that of the supernet that was saved.
    card = read_card(directory)
    for width in ("0.25", "0.5", "1.0"):
        assert table[f"loss/{float(width):g}"].iloc[-1] == card.made_with["held_out_losses"][width]

    assert whole.data.params["network.widths"] == "[0.25, 0.5, 1.0]"
    assert whole.data.params["training.lr"] == "0.0004"
    assert not {"training.workers", "training.checkpoint_every"} & whole.data.params.keys()
    assert whole.data.tags["supernet_digest"] == card.digest
    (given,) = whole.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("digits", card.data_fingerprint[:36])
    assert json.loads(given.dataset.source)["fingerprint"] == card.data_fingerprint

    grids = sorted(path.name for path in (directory / "samples").iterdir())
    assert grids == ["step-0000005.png", "step-0000010.png", "step-0000012.png"]
    with Image.open(directory / "samples" / grids[-1]) as grid:
        # A row a width and eight columns of 32 pixels, one apart.
        assert grid.size == (8 * 33 - 1, 3 * 33 - 1)
    pictures = [file.path for file in client.list_artifacts(whole.info.run_id, "images")]
    assert sum(path.endswith(".png") for path in pictures) == 3
    kept = {file.path for file in client.list_artifacts(whole.info.run_id)}
    assert kept >= {"supernet.json", "settings.yaml", "training.parquet"}

    train(settings)  # nothing is left to do
    (again,) = runs(settings)
    assert (again.info.run_id, again.info.end_time) == (whole.info.run_id, whole.info.end_time)
    assert len(client.get_metric_history(whole.info.run_id, "learning_rate")) == 3
    assert len(client.list_artifacts(whole.info.run_id, "images")) == len(pictures)


def test_a_supernet_that_is_trained_afresh_has_a_run_of_its_own(settings: RunSettings) -> None:
    train(settings)
    train(settings, fresh=True)
    assert [found.info.status for found in runs(settings)] == ["FINISHED", "FINISHED"]
    assert len({found.data.tags["training_id"] for found in runs(settings)}) == 2
    assert len({found.data.tags["supernet_digest"] for found in runs(settings)}) == 1


def test_an_absent_server_stops_nothing_and_is_caught_up_with(
    tmp_path: Path, empty_store: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    train(tiny_settings(tmp_path, "tracking.uri=http://127.0.0.1:9"))
    assert "MLflow was not written: MLflow at http://127.0.0.1:9" in caplog.text
    settings = tiny_settings(tmp_path, own_store(tmp_path, empty_store))
    train(settings)  # done already, but MLflow is there now
    (found,) = runs(settings)
    assert found.info.status == "FINISHED"
    history = make_client(settings.tracking.uri).get_metric_history(found.info.run_id, "loss/0.25")
    assert [metric.step for metric in history] == [5, 10, 12]


def test_a_driver_killed_before_it_noted_its_run_down_finds_it_again(settings: RunSettings) -> None:
    train(settings)
    note = settings.supernet_directory / "mlflow.json"
    noted = json.loads(note.read_text())
    note.write_text(json.dumps({"experiment_id": "", "run_id": "", "training_id": noted["training_id"]}))
    train(settings)
    assert [found.info.run_id for found in runs(settings)] == [noted["run_id"]]
    assert json.loads(note.read_text()) == noted


def test_without_tracking_there_is_a_table_and_no_store(tmp_path: Path) -> None:
    train(tiny_settings(tmp_path, "tracking.uri=null", "training.samples_every=0"))
    assert list(pd.read_parquet(tmp_path / "tiny" / "supernet" / TRAINING_TABLE)["step"]) == [5, 10, 12]
    assert not (tmp_path / "mlflow.db").exists()
    assert not (tmp_path / "tiny" / "supernet" / "samples").exists()


def test_a_checkpoint_that_was_lost_is_one_row_once_it_is_made_again(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path)
    data: ImageData = load_data(settings.data)
    log = TrainingLog(settings, data, tmp_path)
    for step, loss in ((5, 0.9), (10, 0.5), (5, 0.8), (10, 0.4)):
        log.add(TrainingReport(step, 20, {0.25: loss, 1.0: loss}, saved=True))
    table = pd.read_parquet(tmp_path / TRAINING_TABLE)
    assert list(zip(table["step"], table["loss/0.25"], strict=True)) == [(5, 0.8), (10, 0.4)]


def test_the_checkpoint_of_a_store_is_forgotten_by_a_fresh_training(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path, f"training.checkpoints=file://{tmp_path}/store")
    with pytest.raises(KilledError):
        train(settings, killed_at=7)
    shutil.rmtree(settings.supernet_directory)
    seen: list[int] = []
    run_training(settings, False, lambda state: seen.append(state.step), lambda text: None)
    assert seen[0] == 6
    seen.clear()
    run_training(settings, True, lambda state: seen.append(state.step), lambda text: None)
    assert seen[0] == 1


def test_a_secret_in_the_address_of_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds a password"):
        tiny_settings(tmp_path, "training.checkpoints=s3://key:secret@bucket/folder")
