"""Training through Ray Train: two workers, one that is lost, checkpoints elsewhere, and what is refused."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stepfront.errors import InputError
from stepfront.search.config import RunSettings
from stepfront.search.driver.train import run_training
from stepfront.search.training import distributed_training as train_cluster
from stepfront.search.training.distributed_training import train_on_cluster
from stepfront.trainers.data import ImageData, load_data
from stepfront.trainers.training.checkpoint_file import CHECKPOINT_FILE, training_key
from stepfront.trainers.training.checkpoints import CheckpointStore
from stepfront.trainers.training.trainer import TrainingReport, train_supernet
from tests.search.conftest import tiny_settings
from tests.search.training.deadly_images import Deadly

TWO = ("training.workers=2", "workers.cpus=0.5")
ONE = ("training.workers=1", "workers.cpus=0.5")
"""A group of one: each of a group is a process to start, and some facts don't depend on their number."""


def weights_of(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / CHECKPOINT_FILE)


@pytest.fixture(scope="module")
def unbroken(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunSettings, ImageData, Path, list[int]]:
    """Return settings, images, the directory of a training by two workers, and the steps of its checkpoints."""
    directory = tmp_path_factory.mktemp("unbroken")
    settings = tiny_settings(directory, *TWO)
    data, steps = load_data(settings.data), list[int]()
    train_on_cluster(settings, data, directory, lambda state: steps.extend([state.step] if state.saved else []))
    return settings, data, directory, steps


def test_two_workers_end_with_the_weights_of_one_process(
    unbroken: tuple[RunSettings, ImageData, Path, list[int]], tmp_path: Path
) -> None:
    settings, data, directory, steps = unbroken
    assert steps == [5, 10, 12]
    train_supernet(settings, data, tmp_path)
    alone = weights_of(tmp_path)
    for name, value in weights_of(directory).items():
        torch.testing.assert_close(value, alone[name], rtol=1e-3, atol=2e-5)


def test_a_training_whose_worker_is_killed_ends_with_the_weights_of_an_unbroken_one(
    cluster: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = tiny_settings(tmp_path, *ONE)
    data = load_data(settings.data)
    train_supernet(settings, data, tmp_path / "unbroken")
    ours, theirs = weights_after_a_lost_worker(data, tmp_path, caplog, *ONE), weights_of(tmp_path / "unbroken")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.long
def test_a_group_of_which_one_worker_is_killed_ends_with_the_weights_of_an_unbroken_one(
    unbroken: tuple[RunSettings, ImageData, Path, list[int]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, data, directory, _ = unbroken
    ours, theirs = weights_after_a_lost_worker(data, tmp_path, caplog, *TWO), weights_of(directory)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def weights_after_a_lost_worker(
    data: ImageData, tmp_path: Path, caplog: pytest.LogCaptureFixture, *overrides: str
) -> dict[str, torch.Tensor]:
    """Return the weights of a training that has lost its last worker at step 8, and said so."""
    mark, seen = tmp_path / "killed", list[TrainingReport]()
    # The checkpoints are on a file system of pyarrow's: the new group has nothing else to continue from.
    uri = f"file://{tmp_path}/store"
    chosen = tiny_settings(tmp_path, *overrides, f"training.checkpoints={uri}")
    deadly = replace(data, images=Deadly(data.images, mark, steps=8, rank=chosen.training.workers - 1))
    train_on_cluster(chosen, deadly, tmp_path / "net", seen.append, CheckpointStore(uri, training_key(chosen, data)))
    assert int(mark.read_text()) != os.getpid()  # a worker was lost indeed
    assert "a worker was lost at about step" in caplog.text
    assert [state.step for state in seen if state.saved] == [5, 10, 12]
    return weights_of(tmp_path / "net")


def test_workers_that_are_lost_too_often_end_the_training_in_one_line(cluster: None, tmp_path: Path) -> None:
    never = tiny_settings(tmp_path, *ONE, "training.restarts=0")
    data = load_data(never.data)
    deadly = replace(data, images=Deadly(data.images, tmp_path / "killed", steps=0, rank=0))
    with pytest.raises(InputError, match=r"^the workers were lost more than 0 times: [^\n]+$"):
        train_on_cluster(never, deadly, tmp_path / "net", lambda state: None)
    assert (tmp_path / "killed").exists()


def test_a_training_that_diverges_is_not_begun_again(cluster: None, tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path, *ONE, "training.lr=1e30", "training.warmup=0")
    with pytest.raises(InputError, match="diverged before step 5"):
        train_on_cluster(settings, load_data(settings.data), tmp_path / "net", lambda state: None)


def test_a_cluster_that_may_grow_is_waited_for_and_says_so(cluster: None, caplog: pytest.LogCaptureFixture) -> None:
    settings = tiny_settings(Path(), "training.workers=9", "workers.cpus=8", "workers.address=auto")
    with caplog.at_level("WARNING", logger="stepfront"):
        train_cluster._check_slots(settings)
    assert re.search(r"training\.workers 9: the cluster has room for \d+ of 8 CPUs .* waiting for nodes", caplog.text)


def test_a_machine_without_room_for_the_workers_says_so(cluster: None, tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path, "training.workers=9", "workers.cpus=8")
    with pytest.raises(InputError, match=r"training\.workers 9: this machine has room for \d+ of 8 CPUs and 0 GPUs"):
        run_training(settings, False, lambda state: None, lambda text: None)
