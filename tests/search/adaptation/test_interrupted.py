"""Second stages that were interrupted, or whose MLflow was away: rows of groups, and runs below that of the stage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stepfront.search.adaptation.adapt import adapted_settings, run_adaptation, settings_of_supernet
from stepfront.search.config import RunSettings
from stepfront.search.driver.delete import delete_parts, find_parts
from stepfront.search.driver.train import checkpoint_store
from stepfront.search.mlflow_runs.client import make_client
from stepfront.search.tracking.experiments import training_experiment
from stepfront.search.tracking.training_log import TrainingLog
from stepfront.tables.parquet import read_table
from stepfront.tables.schema import TRAINING
from stepfront.trainers.adaptation.second_stage import SecondStage
from stepfront.trainers.data import load_data
from stepfront.trainers.networks.card import CARD_FILE
from stepfront.trainers.training.distributed import Group
from stepfront.trainers.training.trainer import TrainingReport, begin_training, train_share
from tests.search.conftest import own_store

TWO = [
    *("adapt.groups.count=2", "adapt.groups.by=times", "adapt.steps=4"),
    *("training.samples_every=0", "training.checkpoint_every=2"),
]
AWAY = "tracking.uri=http://127.0.0.1:9"


class KilledError(Exception):
    pass


def settings_for(place: Path, *overrides: str) -> RunSettings:
    return adapted_settings(settings_of_supernet(str(place / "tiny"), [*TWO, *overrides]))


def adapt(place: Path, *overrides: str, report: Callable[[TrainingReport], None] = lambda state: None) -> RunSettings:
    settings = settings_for(place, *overrides)
    run_adaptation(settings, str(place / "tiny"), False, report, lambda text: None)
    return settings


def killed_at(step: int) -> Callable[[TrainingReport], None]:
    def report(state: TrainingReport) -> None:
        if state.step == step:
            raise KilledError

    return report


def rows(group: Path) -> list[dict[Any, Any]]:
    """Return what the same training has twice: all but when and how fast."""
    table = read_table(group / TRAINING).drop(columns=["time", "images_per_second"])
    return [dict(row) for row in table.to_dict("records")]


def train_unseen(settings: RunSettings, place: Path) -> None:
    """Train all groups as workers do whose driver is killed before it takes one of their reports."""
    data = load_data(settings.data)
    groups = settings.supernet_directory / "groups"
    for one in (
        SecondStage.checked(settings, settings.adapt, data, place / "tiny" / "supernet", groups).begin().trainings()
    ):
        store = checkpoint_store(one.settings, data)
        begin_training(one.settings, data, one.directory, store)
        train_share(one.settings, data, one.directory, lambda state: None, store, Group(device=torch.device("cpu")))
        if store is not None:
            shutil.rmtree(one.directory)  # that of another node


@pytest.fixture(scope="module")
def whole(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[Any, Any]]]:
    """Return the rows of each group of a stage that nothing interrupted."""
    place = tmp_path_factory.mktemp("unbroken")
    shutil.copytree(trained / "tiny", place / "tiny")
    groups = adapt(place).supernet_directory / "groups"
    return [rows(groups / f"group-{number}") for number in range(2)]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_group_that_is_done_has_the_rows_whose_reports_a_killed_driver_did_not_take(
    fresh: Path, whole: list[list[dict[Any, Any]]], elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [[row["step"] for row in group] for group in whole] == [[2, 4], [2, 4]]
    store = [f"training.checkpoints=file://{fresh}/store"] if elsewhere else []
    settings = settings_for(fresh, *store)
    train_unseen(settings, fresh)
    groups = [settings.supernet_directory / "groups" / f"group-{number}" for number in range(2)]
    assert not any((group / TRAINING).exists() for group in groups)

    def killed(self: TrainingLog, finished: bool, timeout: float = 120) -> str:
        raise KilledError

    with monkeypatch.context() as patch:  # once more, as soon as the first group counts as done
        patch.setattr(TrainingLog, "close", killed)
        with pytest.raises(KilledError):
            adapt(fresh, *store)
    assert [(group / CARD_FILE).exists() for group in groups] == [True, False]
    if not elsewhere:
        assert rows(groups[0]) == whole[0]  # before it counted as done
    adapt(fresh, *store)
    assert [rows(group) for group in groups] == whole
    assert read_table(settings.supernet_directory / "adaptation.parquet")["seconds"].notna().all()


def found_runs(settings: RunSettings) -> dict[str, Any]:
    client = make_client(settings.tracking.uri)
    experiment = client.get_experiment_by_name(training_experiment(settings))
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    names = [run.info.run_name for run in runs]
    assert len(names) == len(set(names))
    return dict(zip(names, runs, strict=True))


@pytest.mark.parametrize("stopped_at", [None, 7])
def test_what_mlflow_lacks_is_written_once_by_the_next_call(
    fresh: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch, stopped_at: int | None
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    if stopped_at is None:
        adapt(fresh, AWAY)
    else:
        with pytest.raises(KilledError):
            adapt(fresh, AWAY, report=killed_at(stopped_at))
    settings = adapt(fresh, own_store(fresh, empty_store))
    client, runs = make_client(settings.tracking.uri), found_runs(settings)
    assert sorted(runs) == ["tiny-groups-2", "tiny-groups-2.group-0", "tiny-groups-2.group-1"]
    assert {run.info.status for run in runs.values()} == {"FINISHED"}

    def history(name: str, metric: str) -> list[int]:
        return [point.step for point in client.get_metric_history(runs[name].info.run_id, metric)]

    adapt(fresh, f"tracking.uri={settings.tracking.uri}")  # nothing is left to do
    assert [history(f"tiny-groups-2.group-{number}", "loss/0.25") for number in range(2)] == [[2, 4], [2, 4]]
    assert history("tiny-groups-2", "loss_after/0.25") == [1, 2]
    again = found_runs(settings)
    assert {name: again[name].info.end_time for name in again} == {name: runs[name].info.end_time for name in runs}


def test_groups_are_nested_below_the_run_of_their_stage_from_their_first_checkpoint(
    fresh: Path, empty_store: Path
) -> None:
    uri = own_store(fresh, empty_store)
    with pytest.raises(KilledError):
        adapt(fresh, uri, report=killed_at(7))
    settings = settings_for(fresh, uri)
    begun = found_runs(settings)
    stage = begun.pop("tiny-groups-2")
    assert stage.info.status == "KILLED"
    assert {name: run.info.status for name, run in begun.items()} == {
        "tiny-groups-2.group-0": "FINISHED",
        "tiny-groups-2.group-1": "KILLED",
    }
    assert {run.data.tags["mlflow.parentRunId"] for run in begun.values()} == {stage.info.run_id}
    adapt(fresh, uri)
    assert {(run.info.run_id, run.info.status) for run in found_runs(settings).values()} == {
        (run.info.run_id, "FINISHED") for run in [stage, *begun.values()]
    }
    # A run of an earlier version stands alone; the next call nests it.
    client, group = make_client(settings.tracking.uri), begun["tiny-groups-2.group-0"].info.run_id
    client.delete_tag(group, "mlflow.parentRunId")
    adapt(fresh, uri)
    assert client.get_run(group).data.tags["mlflow.parentRunId"] == stage.info.run_id
    assert delete_parts(find_parts(str(settings.supernet_directory.parent)), mlflow=True) == 3
