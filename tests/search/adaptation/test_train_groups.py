"""Groups of a second stage that train at once on Ray: the weights of one process, lost workers, and one-line errors."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from safetensors.torch import load_file

from stepfront.errors import InputError
from stepfront.search.adaptation.adapt import adapted_settings, run_adaptation, settings_of_supernet
from stepfront.search.adaptation.train_groups import train_groups
from stepfront.search.config import RunSettings
from stepfront.search.training.parallel_trainings import trainings_at_once
from stepfront.tables.parquet import read_table
from stepfront.tables.schema import TRAINING
from stepfront.trainers.adaptation.second_stage import SecondStage
from stepfront.trainers.data import ImageData, load_data
from stepfront.trainers.networks.card import read_card
from stepfront.trainers.training.checkpoint_file import CHECKPOINT_FILE
from stepfront.trainers.training.trainer import TrainingReport
from tests.search.training.deadly_images import Deadly

SHORT = ("adapt.groups.by=times", "adapt.steps=4", "training.samples_every=0", "training.checkpoint_every=2")
AT_ONCE = "workers.count=2"


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def settings_for(supernet: Path, *overrides: str, groups: int = 2) -> RunSettings:
    given = [f"adapt.groups.count={groups}", *SHORT, *overrides]
    return adapted_settings(settings_of_supernet(str(supernet), given))


def stage_of(supernet: Path, place: Path, *overrides: str, groups: int = 2) -> SecondStage[RunSettings]:
    settings = settings_for(supernet, *overrides, groups=groups)
    return SecondStage.checked(settings, settings.adapt, load_data(settings.data), supernet / "supernet", place).begin()


def train(stage: SecondStage[RunSettings], data: ImageData | None = None, report: Any = lambda state: None) -> None:
    trainings = stage.trainings()
    at_once = trainings_at_once(stage.settings, len(trainings))
    train_groups(trainings, at_once, data or stage.data, False, report, lambda text: None)


def weights_of(groups: Path) -> dict[str, torch.Tensor]:
    """Return every number in the checkpoints of all groups."""
    files = sorted(groups.glob(f"group-*/{CHECKPOINT_FILE}"))
    return {f"{file.parent.name} {name}": value for file in files for name, value in load_file(file).items()}


def assert_same(ours: Path, theirs: Path) -> None:
    mine, others = weights_of(ours), weights_of(theirs)
    assert mine.keys() == others.keys()
    assert [name for name, value in mine.items() if not torch.equal(value, others[name])] == []


@pytest.fixture(scope="module")
def one_by_one(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of two groups that one process has trained."""
    place = tmp_path_factory.mktemp("one-by-one")
    train(stage_of(trained / "tiny", place))
    return place


@pytest.mark.long
def test_eight_groups_at_once_end_with_the_weights_of_one_process(fresh: Path, cluster: None, tmp_path: Path) -> None:
    train(stage_of(fresh / "tiny", tmp_path / "alone", groups=8))
    seen, said = list[TrainingReport](), list[str]()
    settings = settings_for(fresh / "tiny", AT_ONCE, groups=8)
    made = run_adaptation(settings, str(fresh / "tiny"), False, seen.append, said.append)
    assert "8 groups on Ray, up to 2 at once, 1 CPUs each" in said
    assert sorted(line for line in said if line.endswith(": trained"))[0] == "group 1, times 0 to 124: trained"
    assert_same(made.directory / "groups", tmp_path / "alone")
    steps = [state.step for state in seen]
    assert (steps, steps[-1], {state.total for state in seen}) == (sorted(steps), 32, {32})
    for number in range(8):
        alone = read_card(tmp_path / "alone" / f"group-{number}")
        assert read_card(made.directory / "groups" / f"group-{number}").digest == alone.digest
        assert list(read_table(made.directory / "groups" / f"group-{number}" / TRAINING)["step"]) == [2, 4]


def test_a_group_whose_worker_is_killed_ends_with_the_same_weights(
    trained: Path, cluster: None, one_by_one: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage, mark = stage_of(trained / "tiny", tmp_path / "groups", AT_ONCE), tmp_path / "killed"
    train(stage, replace(stage.data, images=Deadly(stage.data.images, mark, steps=3)))
    assert int(mark.read_text()) != os.getpid()  # a worker was lost indeed
    (line,) = [line for line in caplog.messages if "died" in line]
    assert line.startswith("group ")
    assert line.endswith("; it continues at its last checkpoint")
    assert_same(tmp_path / "groups", one_by_one)


def test_an_interrupted_call_ends_its_workers_and_continues_to_the_same_weights(
    trained: Path, cluster: None, one_by_one: Path, tmp_path: Path
) -> None:
    stage = stage_of(trained / "tiny", tmp_path / "groups", AT_ONCE)

    def interrupt(state: TrainingReport) -> None:
        if state.step >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(stage, report=interrupt)
    assert not all(training.done for training in stage.trainings())
    until = time.monotonic() + 30
    while ray.available_resources().get("CPU", 0) < ray.cluster_resources()["CPU"] and time.monotonic() < until:
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"]  # nothing trains any more
    train(stage)
    assert_same(tmp_path / "groups", one_by_one)


def test_groups_that_can_t_be_trained_are_named_in_one_line(trained: Path, cluster: None, tmp_path: Path) -> None:
    wild = ("adapt.lr=1e30", "adapt.warmup=0")
    for count in ("workers.count=1", AT_ONCE):
        stage = stage_of(trained / "tiny", tmp_path / count, *wild, count)
        line = r"^group [12], times \d+ to \d+: the training diverged before step 2; set a smaller adapt\.lr$"
        with pytest.raises(InputError, match=line):
            train(stage)
    stage = stage_of(trained / "tiny", tmp_path / "lost", AT_ONCE, "training.restarts=0")
    deadly = replace(stage.data, images=Deadly(stage.data.images, tmp_path / "killed", steps=0))
    with pytest.raises(InputError, match=r"^group [12], times \d+ to \d+: its worker died[^\n]*, more than 0 times$"):
        train(stage, deadly)
    large = stage_of(trained / "tiny", tmp_path / "large", AT_ONCE, "workers.cpus=999")
    with pytest.raises(InputError, match="a worker needs 999 CPUs and 0 GPUs on one machine"):
        train(large)


def test_a_run_that_another_supernet_began_is_refused(fresh: Path) -> None:
    settings = settings_for(fresh / "tiny")
    run_adaptation(settings, str(fresh / "tiny"), False, lambda state: None, lambda text: None)
    other = fresh / "other" / "supernet"
    shutil.copytree(settings.supernet_directory / "groups" / "group-0", other)
    with pytest.raises(InputError, match=r"was begun from another supernet \(digest \w{12}, not \w{12}\); start over"):
        run_adaptation(settings, str(other), False, lambda state: None, lambda text: None)


@pytest.mark.parametrize(
    ("overrides", "at_once"),
    [
        (("workers.count=1",), 1),
        (("workers.count=3",), 3),
        (("workers.count=99",), 8),
        (("workers.count=2", "training.workers=2"), 1),  # they share each batch, group after group
        (("workers.count=null", "workers.cpus=999"), 1),
        (("workers.count=null", "workers.address=auto"), 8),  # as many as the cluster has room for
    ],
)
def test_how_many_groups_train_at_once(trained: Path, overrides: tuple[str, ...], at_once: int) -> None:
    assert trainings_at_once(settings_for(trained / "tiny", *overrides, groups=8), 8) == at_once


@pytest.mark.parametrize(("cpus", "at_once"), [(1, 1), (4, 2)])
def test_groups_that_would_leave_most_processors_idle_train_one_after_the_other(
    cpus: int, at_once: int, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    overrides = "workers.count=null", f"workers.cpus={cpus}"
    assert trainings_at_once(settings_for(trained / "tiny", *overrides, groups=2), 2) == at_once
