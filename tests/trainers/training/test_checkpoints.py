"""Checkpoints on file systems that pyarrow knows and that need no network: the disk, and memory through fsspec."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pyarrow import fs
from torch.optim.optimizer import register_optimizer_step_pre_hook

from stepfront.errors import InputError
from stepfront.trainers.data import ImageData
from stepfront.trainers.training.checkpoint_file import CHECKPOINT_FILE, step_of, training_key
from stepfront.trainers.training.checkpoints import CheckpointStore
from stepfront.trainers.training.trainer import train_supernet
from tests.trainers.training.test_trainer import KilledError, killed_at, settings


@pytest.fixture(params=["file", "fsspec+memory"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.param}://{tmp_path}/store"


def test_a_training_goes_on_from_the_store_where_its_directory_is_lost(
    uri: str, digits: ImageData, tmp_path: Path
) -> None:
    whole = train_supernet(settings(), digits, tmp_path / "whole")
    store = CheckpointStore(uri, training_key(settings(), digits))
    with pytest.raises(KilledError):
        train_supernet(settings(), digits, tmp_path / "lost", killed_at(8), store)
    steps: list[int] = []
    resumed = train_supernet(settings(), digits, tmp_path / "new", lambda s: steps.append(s.step), store)
    assert steps[0] == 6  # the checkpoint of step 5
    assert resumed.digest == whole.digest
    files, folder = fs.FileSystem.from_uri(uri)
    found = [info.path for info in files.get_file_info(fs.FileSelector(folder, recursive=True)) if info.is_file]
    assert [path.rpartition("/")[2] for path in found] == [CHECKPOINT_FILE]  # nothing half-written stays
    store.delete()
    assert not files.get_file_info(found[0]).is_file


def test_the_later_of_two_checkpoints_is_gone_on_from(uri: str, digits: ImageData, tmp_path: Path) -> None:
    store = CheckpointStore(uri, training_key(settings(), digits))
    with pytest.raises(KilledError):
        train_supernet(settings(), digits, tmp_path / "a", killed_at(6), store)
    with pytest.raises(KilledError):
        train_supernet(settings(), digits, tmp_path / "b", killed_at(11))
    store.fetch(tmp_path / "b" / CHECKPOINT_FILE)
    assert step_of(tmp_path / "b" / CHECKPOINT_FILE) == 10
    store.upload(tmp_path / "b" / CHECKPOINT_FILE)
    store.fetch(tmp_path / "a" / CHECKPOINT_FILE)
    assert step_of(tmp_path / "a" / CHECKPOINT_FILE) == 10
    assert not list(tmp_path.glob("*/.*"))


def test_moments_of_a_resumed_training_have_the_layout_of_their_weights(digits: ImageData, tmp_path: Path) -> None:
    # Adam's fused kernel on a GPU refuses any other.
    chosen = settings(engine="channels_last")
    with pytest.raises(KilledError):
        train_supernet(chosen, digits, tmp_path, killed_at(6))
    strides: list[tuple[object, object]] = []

    def look(training: torch.optim.Optimizer, *_: object) -> None:
        pairs = [(weights, training.state[weights]["exp_avg"]) for weights in training.param_groups[0]["params"]]
        strides.extend((weights.stride(), moment.stride()) for weights, moment in pairs)

    hook = register_optimizer_step_pre_hook(look)
    try:
        train_supernet(chosen, digits, tmp_path)
    finally:
        hook.remove()
    assert strides
    assert all(weights == moment for weights, moment in strides)


def test_trainings_of_other_settings_or_data_never_meet_in_a_store(uri: str, digits: ImageData, tmp_path: Path) -> None:
    train_supernet(settings(), digits, tmp_path / "a", store=CheckpointStore(uri, training_key(settings(), digits)))
    for chosen, data in ((settings(seed=1), digits), (settings(), replace(digits, fingerprint="0" * 64))):
        CheckpointStore(uri, training_key(chosen, data)).fetch(tmp_path / "b" / CHECKPOINT_FILE)
        assert not (tmp_path / "b" / CHECKPOINT_FILE).exists()


@pytest.mark.parametrize("uri", ["runs/here", "nowhere://bucket"])
def test_a_uri_without_a_file_system_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match=r"training\.checkpoints can't be used .*; give a URI such as s3://BUCKET"):
        CheckpointStore(uri, "key")


def test_a_store_that_cannot_be_written_ends_in_one_line(digits: ImageData, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=r"can't write the checkpoint to training\.checkpoints: [^\n]*$"):
        train_supernet(settings(), digits, tmp_path / "a", store=CheckpointStore(f"file://{tmp_path}/file", "key"))
    assert step_of(tmp_path / "a" / CHECKPOINT_FILE) == 5  # the one in the directory is there
