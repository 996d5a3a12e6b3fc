"""Several processes train as one does: the same images in the same order, and the same weights up to rounding."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from pydantic import ValidationError
from safetensors.torch import load_file

from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.data import ImageData
from stepfront.trainers.training.checkpoint_file import CHECKPOINT_FILE
from stepfront.trainers.training.distributed import Group
from stepfront.trainers.training.trainer import TrainingReport, begin_training, train_supernet
from stepfront.trainers.training_settings import TrainingSettings
from tests.trainers.training.one_of_two import late_by_more_than_a_step_may_take, one_of_two, recording
from tests.trainers.training.test_trainer import settings


def test_processes_wait_for_one_that_decodes_its_images_first(tmp_path: Path) -> None:
    mp.spawn(late_by_more_than_a_step_may_take, (tmp_path,), nprocs=2)
    assert (tmp_path / "0").exists()
    assert (tmp_path / "1").exists()
    with Group().together(0):  # one alone needs no torch.distributed
        pass


def weights_of(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / CHECKPOINT_FILE)


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("distill", [0.0, 0.5])
def test_two_processes_compute_the_steps_of_one(digits: ImageData, tmp_path: Path, distill: float) -> None:
    # Five images: the two shares differ in size, and must weigh accordingly.
    chosen = settings(flip=True, batch=5, steps=8, checkpoint_every=4, distill=distill)
    alone, images = recording(digits)
    train_supernet(chosen, alone, tmp_path / "one")
    assert begin_training(chosen, digits, tmp_path / "two") == 0
    mp.spawn(one_of_two, (tmp_path / "two", chosen, digits), nprocs=2)
    told = [json.loads((tmp_path / "two" / f"{rank}.json").read_text()) for rank in range(2)]
    assert [first + second for first, second in zip(told[0]["read"], told[1]["read"], strict=True)] == images.read
    assert [len(part["read"][0]) for part in told] == [2, 3]
    assert [part["reported"] for part in told] == [list(range(1, 9)), []]  # the first alone reports
    assert_close(weights_of(tmp_path / "two"), weights_of(tmp_path / "one"))
    # And each continues with what the other left: the checkpoint is one and the same file.
    card = train_supernet(chosen, digits, tmp_path / "two", lambda report: pytest.fail("there was nothing left to do"))
    assert card.made_with["held_out_losses"]["1.0"] > 0


@pytest.mark.parametrize("variant", [{}, {"distill": 0.5}, {"batch": 7}])
def test_micro_batches_add_up_to_the_batch(digits: ImageData, tmp_path: Path, variant: dict[str, Any]) -> None:
    train_supernet(settings(**variant), digits, tmp_path / "whole")
    train_supernet(settings(accumulate=3, **variant), digits, tmp_path / "parts")
    assert_close(weights_of(tmp_path / "parts"), weights_of(tmp_path / "whole"))
    assert any(
        not torch.equal(value, weights_of(tmp_path / "parts")[name])
        for name, value in weights_of(tmp_path / "whole").items()
    )  # it was summed in parts indeed


def test_a_training_goes_on_in_other_parts_than_it_began(digits: ImageData, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def killed(state: TrainingReport) -> None:
        if state.step == 6:
            raise KilledError

    with pytest.raises(KilledError):
        train_supernet(settings(accumulate=2), digits, tmp_path / "both", killed)
    steps: list[int] = []
    train_supernet(settings(workers=2), digits, tmp_path / "both", lambda state: steps.append(state.step))
    assert steps[0] == 6
    train_supernet(settings(), digits, tmp_path / "one")
    assert_close(weights_of(tmp_path / "both"), weights_of(tmp_path / "one"))


@pytest.mark.parametrize(("batch", "size", "parts"), [(128, 4, 2), (7, 2, 3), (5, 5, 1), (1, 1, 1)])
def test_shares_are_all_of_the_batch_once_and_of_nearly_equal_size(batch: int, size: int, parts: int) -> None:
    shares = [part for rank in range(size) for part in Group(rank, size).shares(batch, parts)]
    rows = [list(range(batch))[part] for part in shares]
    assert [row for part in rows for row in part] == list(range(batch))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_a_batch_smaller_than_its_parts_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"a batch of 8 images can't be cut into 3 workers x 3 micro-batches"):
        TrainingSettings(batch=8, workers=3, accumulate=3)


def test_a_checkpoint_of_step_nought_changes_nothing(digits: ImageData, tmp_path: Path) -> None:
    begun = settings({"dropout": 0.2})
    assert begin_training(begun, digits, tmp_path / "begun") == 0
    assert train_supernet(begun, digits, tmp_path / "begun").digest == (
        train_supernet(begun, digits, tmp_path / "plain").digest
    )


def test_only_the_beginning_reads_the_supernet_that_a_training_starts_from(
    digits: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_supernet(settings(steps=1), digits, tmp_path / "first")
    chosen = settings(start=str(tmp_path / "first"))
    whole = train_supernet(chosen, digits, tmp_path / "whole")
    begin_training(chosen, digits, tmp_path / "begun")
    (tmp_path / "first").rename(tmp_path / "gone")  # as on another node
    card = train_supernet(chosen, digits, tmp_path / "begun")
    assert card.digest == whole.digest
    assert card.made_with["started_from"] == whole.made_with["started_from"]


# --- what is reported -------------------------------------------------------------------------------------------------


def reports(chosen: TrainerSettings, digits: ImageData, directory: Path) -> list[TrainingReport]:
    seen: list[TrainingReport] = []
    train_supernet(chosen, digits, directory, seen.append)
    return seen


def test_checkpoints_are_reported_with_throughput_rate_and_samples(digits: ImageData, tmp_path: Path) -> None:
    seen = reports(settings(steps=7, checkpoint_every=3, decay=False, samples_every=1), digits, tmp_path)
    assert [state.step for state in seen if state.saved] == [3, 6, 7]
    for state in seen:
        assert (state.samples is not None) == state.saved
        if state.saved:
            assert state.samples is not None
            assert state.images_per_second > 0
            assert state.samples.shape == (4 * 8, 1, 8, 8)
    assert [state.learning_rate for state in seen if state.saved] == pytest.approx([3e-4, 4e-4, 4e-4])


def test_throughput_counts_every_image_of_every_width(
    digits: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("stepfront.trainers.training.trainer.time.perf_counter", lambda: 10.0 * next(clock))
    first, second = (state for state in reports(settings(steps=8, checkpoint_every=5), digits, tmp_path) if state.saved)
    # Ten seconds a reading of the clock: five steps of 4 images at 3 widths, then three.
    assert (first.images_per_second, second.images_per_second) == (6.0, 3.6)


@pytest.mark.parametrize(("every", "expected"), [(0, []), (1, [2, 4, 6, 7]), (2, [4, 7])])
def test_grids_are_drawn_as_often_as_asked_and_change_no_weights(
    digits: ImageData, tmp_path: Path, every: int, expected: list[int]
) -> None:
    chosen = settings({"dropout": 0.3}, steps=7, checkpoint_every=2, samples_every=every)
    seen = reports(chosen, digits, tmp_path / "a")
    assert [state.step for state in seen if state.samples is not None] == expected
    plain = train_supernet(chosen.model_copy(update={"training": settings(steps=7).training}), digits, tmp_path / "b")
    assert train_supernet(chosen, digits, tmp_path / "a").digest == plain.digest


def test_a_row_of_samples_is_its_width_on_the_noise_of_all_rows(
    digits: ImageData, tmp_path: Path, random_supernet: Callable[..., Any]
) -> None:
    from stepfront.trainers.diffusion.noise import Noise
    from stepfront.trainers.diffusion.plan import Plan
    from stepfront.trainers.diffusion.preview import width_samples
    from stepfront.trainers.diffusion.sampler import Sampler
    from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid

    chosen = settings()
    supernet, schedule = random_supernet(chosen.network), noise_schedule(chosen.diffusion)
    drawn = width_samples(supernet, schedule, torch.device("cpu"), 3)
    for row, width in enumerate(chosen.network.widths):
        # By a plain subnet of its own, four images at a time.
        sampler = Sampler(
            {width: supernet.subnet(width)}, schedule, Noise(3, (1, 8, 8)), torch.device("cpu"), clip=True
        )
        plan = Plan(tuple(time_grid(schedule, "trailing", 10).tolist()), (width,) * 10)
        expected = torch.cat(list(sampler.sample(plan, 8, 4)))
        pixels = ((expected + 1) * 127.5).clamp(0, 255).numpy()
        assert np.abs(drawn[8 * row : 8 * row + 8] - pixels).max() <= 0.51
