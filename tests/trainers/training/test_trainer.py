"""Sandwich training: it learns, and a killed run continues exactly."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings, TrainerSettings
from stepfront.trainers.data import ImageData
from stepfront.trainers.latent_space import LatentSpace
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import WEIGHTS_FILE, load_supernet, save_supernet
from stepfront.trainers.training.checkpoint_file import CHECKPOINT_FILE
from stepfront.trainers.training.starting_weights import start_from
from stepfront.trainers.training.trainer import TrainingReport, begin_training, train_supernet
from stepfront.trainers.training.width_gradients import WidthGradients
from stepfront.trainers.training_settings import TrainingSettings
from stepfront.trainers.validation import validate

NETWORK = NetworkSettings(base=8, multipliers=(1, 2), groups=4, group_channels=2)


def settings(network: dict[str, Any] | None = None, flip: bool = False, **training: Any) -> TrainerSettings:
    defaults = {"steps": 12, "batch": 4, "checkpoint_every": 5, "held_out_images": 16, "device": "cpu", "warmup": 4}
    defaults["samples_every"] = 0  # a grid of four widths takes longer than the steps between two
    return TrainerSettings(
        data=DataSettings(flip=flip),
        network=NETWORK.model_copy(update=network or {}),
        training=TrainingSettings(**(defaults | training)),
    )


class KilledError(Exception):
    pass


def killed_at(*steps: int) -> Callable[[TrainingReport], None]:
    def report(state: TrainingReport) -> None:
        if state.step in steps:
            raise KilledError

    return report


# --- learning ---------------------------------------------------------------------------------------------------------


def test_the_loss_of_every_width_falls_and_is_written_down(digits: ImageData, tmp_path: Path) -> None:
    seen: list[TrainingReport] = []
    chosen = settings(steps=90, batch=16, lr=4e-3, ema=0.95, checkpoint_every=30, held_out_images=128)
    card = train_supernet(chosen, digits, tmp_path, seen.append)
    assert [(report.step, report.total) for report in seen] == [(step, 90) for step in range(1, 91)]
    for width in NETWORK.widths:
        # The first prediction is zero, so the first loss is that of the noise itself: 1.
        assert seen[-1].losses[width] < 0.5
        assert seen[-1].losses[width] < seen[29].losses[width]
    assert card.made_with["held_out_losses"] == {str(w): loss for w, loss in seen[-1].losses.items()}
    assert validate(TrainerSettings, card.made_with["settings"]) == chosen
    assert (card.data_fingerprint, card.data_name) == (digits.fingerprint, "digits")


@pytest.mark.parametrize(
    ("widths", "each_step"),
    [((1.0,), [1.0]), ((0.5, 1.0), [1.0, 0.5]), ((0.25, 0.5, 0.75, 1.0), [1.0, 0.25, None])],
)
def test_every_step_has_the_widest_the_narrowest_and_one_between(
    digits: ImageData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    widths: tuple[float, ...],
    each_step: list[float | None],
) -> None:
    calls: list[float] = []
    add = WidthGradients.add

    def recording(self: WidthGradients, width: float, *given: Any) -> Tensor:
        calls.append(width)
        return add(self, width, *given)

    monkeypatch.setattr(WidthGradients, "add", recording)
    train_supernet(settings({"widths": widths}, steps=20), digits, tmp_path)
    steps = [calls[i : i + len(each_step)] for i in range(0, len(calls), len(each_step))]
    assert len(steps) == 20
    assert all(step[:2] == each_step[:2] for step in steps)
    between = Counter(step[2] for step in steps if len(step) > 2)
    assert set(between) == set(widths[1:-1])


def test_saved_weights_are_the_average_not_the_last(digits: ImageData, tmp_path: Path) -> None:
    train_supernet(settings(), digits, tmp_path)
    saved, checkpoint = load_file(tmp_path / WEIGHTS_FILE), load_file(tmp_path / CHECKPOINT_FILE)
    assert all(torch.equal(saved[name], checkpoint[f"averaged.{name}"]) for name in saved)
    assert any(not torch.equal(saved[name], checkpoint[f"weights.{name}"]) for name in saved)


def test_without_an_average_the_last_weights_are_saved(digits: ImageData, tmp_path: Path) -> None:
    train_supernet(settings(ema=0.0), digits, tmp_path)
    saved, checkpoint = load_file(tmp_path / WEIGHTS_FILE), load_file(tmp_path / CHECKPOINT_FILE)
    for name in saved:
        torch.testing.assert_close(saved[name], checkpoint[f"weights.{name}"], rtol=0, atol=1e-7)


def test_equal_seeds_give_equal_weights_and_others_do_not(digits: ImageData, tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = train_supernet(settings(), digits, tmp_path / "a")
    torch.manual_seed(2)  # what the caller's generator holds must not matter
    second = train_supernet(settings(), digits, tmp_path / "b")
    assert first.digest == second.digest
    assert train_supernet(settings(seed=1), digits, tmp_path / "c").digest != first.digest


def test_the_callers_generator_goes_on_as_if_nothing_had_been_trained(digits: ImageData, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    chosen = settings({"dropout": 0.3}, steps=2)
    for train in (train_supernet, begin_training):
        torch.manual_seed(5)
        train(chosen, digits, tmp_path / train.__name__)
        assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(5)
    with pytest.raises(KilledError):
        train_supernet(chosen, digits, tmp_path / "killed", killed_at(1))
    assert torch.equal(torch.rand(3), expected)


def test_a_training_that_diverges_says_so_and_saves_nothing(digits: ImageData, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"diverged before step 5; set a smaller training\.lr"):
        train_supernet(settings(lr=1e30, warmup=0), digits, tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- continuing -------------------------------------------------------------------------------------------------------

VARIANTS: dict[str, TrainerSettings] = {
    "plain": settings(),
    "dropout": settings({"dropout": 0.3}),
    "distill": settings(distill=0.5),
    "dropout, distill and flip": settings({"dropout": 0.3}, flip=True, distill=0.5, distill_spectrum=0.1),
    "two widths, no decay": settings({"widths": (0.5, 1.0)}, decay=False),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_killed_between_checkpoints_ends_with_the_same_weights_bit_for_bit(
    digits: ImageData, tmp_path: Path, variant: str
) -> None:
    whole = train_supernet(VARIANTS[variant], digits, tmp_path / "whole")
    steps: list[int] = []
    with pytest.raises(KilledError):
        train_supernet(VARIANTS[variant], digits, tmp_path / "killed", killed_at(8))
    assert not (tmp_path / "killed" / WEIGHTS_FILE).exists()
    with pytest.raises(KilledError):
        train_supernet(VARIANTS[variant], digits, tmp_path / "killed", killed_at(11))
    resumed = train_supernet(VARIANTS[variant], digits, tmp_path / "killed", lambda r: steps.append(r.step))
    assert steps == [11, 12]  # it continued from the checkpoint of step 10
    assert resumed.digest == whole.digest
    ours, theirs = load_file(tmp_path / "whole" / CHECKPOINT_FILE), load_file(tmp_path / "killed" / CHECKPOINT_FILE)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)  # Adam's moments too
    assert resumed.made_with == whole.made_with


def test_the_variants_do_train_differently(digits: ImageData, tmp_path: Path) -> None:
    digests = [train_supernet(chosen, digits, tmp_path / name).digest for name, chosen in VARIANTS.items()]
    assert len(set(digests)) == len(digests)


def test_a_run_killed_before_its_first_checkpoint_starts_over(digits: ImageData, tmp_path: Path) -> None:
    whole = train_supernet(settings(), digits, tmp_path / "whole")
    with pytest.raises(KilledError):
        train_supernet(settings(), digits, tmp_path / "killed", killed_at(3))
    assert train_supernet(settings(), digits, tmp_path / "killed").digest == whole.digest


def test_a_finished_run_is_not_trained_again(digits: ImageData, tmp_path: Path) -> None:
    whole = train_supernet(settings(), digits, tmp_path)
    assert train_supernet(settings(), digits, tmp_path, killed_at(*range(100))) == whole


def test_how_often_checkpoints_are_written_changes_nothing(digits: ImageData, tmp_path: Path) -> None:
    often = train_supernet(settings(checkpoint_every=1), digits, tmp_path / "often")
    with pytest.raises(KilledError):
        train_supernet(settings(checkpoint_every=5), digits, tmp_path / "killed", killed_at(8))
    never = train_supernet(settings(checkpoint_every=1000), digits, tmp_path / "killed")
    assert often.digest == never.digest


# --- checkpoints that can't be gone on from ---------------------------------------------------------------------------


@pytest.fixture
def begun(digits: ImageData, tmp_path: Path) -> Path:
    """Return a training that was killed after its first checkpoint."""
    with pytest.raises(KilledError):
        train_supernet(settings(), digits, tmp_path, killed_at(6))
    return tmp_path


@pytest.mark.parametrize("keep", [0, 7, 3000, -1])
def test_a_truncated_checkpoint_is_refused_with_what_to_do(begun: Path, digits: ImageData, keep: int) -> None:
    whole = (begun / CHECKPOINT_FILE).read_bytes()
    (begun / CHECKPOINT_FILE).write_bytes(whole[:keep])
    with pytest.raises(
        InputError, match=f"{CHECKPOINT_FILE} is not a complete checkpoint: .*; delete it to start over"
    ):
        train_supernet(settings(), digits, begun)


@pytest.mark.parametrize(
    "other",
    [settings(lr=1e-3), settings(seed=1), settings(steps=13), settings({"base": 16}), settings({"dropout": 0.1})],
    ids=["lr", "seed", "steps", "base", "dropout"],
)
def test_a_checkpoint_of_other_settings_is_refused(begun: Path, digits: ImageData, other: TrainerSettings) -> None:
    with pytest.raises(InputError, match="made with other settings or data, or by"):
        train_supernet(other, digits, begun)


def test_a_checkpoint_of_other_data_is_refused(begun: Path, digits: ImageData) -> None:
    with pytest.raises(InputError, match="made with other settings or data"):
        train_supernet(settings(), replace(digits, fingerprint="0" * 64), begun)


def test_a_foreign_safetensors_file_is_refused(begun: Path, digits: ImageData, tmp_path: Path) -> None:
    train_supernet(settings(), digits, tmp_path / "other")
    (begun / CHECKPOINT_FILE).write_bytes((tmp_path / "other" / WEIGHTS_FILE).read_bytes())
    with pytest.raises(InputError, match="made with other settings or data"):
        train_supernet(settings(), digits, begun)


def test_a_pickle_under_the_name_of_a_checkpoint_is_refused_and_not_executed(
    begun: Path, digits: ImageData, trap: tuple[object, Path]
) -> None:
    bomb, witness = trap
    (begun / CHECKPOINT_FILE).write_bytes(pickle.dumps(bomb))
    with pytest.raises(InputError, match="not a complete checkpoint"):
        train_supernet(settings(), digits, begun)
    torch.save({"weights": bomb}, begun / CHECKPOINT_FILE)
    with pytest.raises(InputError, match="not a complete checkpoint"):
        train_supernet(settings(), digits, begun)
    assert not witness.exists()


def test_a_full_disk_leaves_the_last_checkpoint_to_go_on_from(
    begun: Path, digits: ImageData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = train_supernet(settings(), digits, tmp_path / "whole")
    before = (begun / CHECKPOINT_FILE).read_bytes()
    with monkeypatch.context() as patch:

        def full(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")

        patch.setattr("stepfront.trainers.training.checkpoint_file.save_file", full)
        with pytest.raises(InputError, match="No space left"):
            train_supernet(settings(), digits, begun)
    assert (begun / CHECKPOINT_FILE).read_bytes() == before
    assert train_supernet(settings(), digits, begun).digest == whole.digest
    assert not list(begun.glob("*.part"))


def test_the_trained_supernet_loads_for_its_data_alone(digits: ImageData, tmp_path: Path) -> None:
    train_supernet(settings(), digits, tmp_path)
    supernet, card = load_supernet(tmp_path, digits.fingerprint)
    with torch.no_grad():
        assert np.isfinite(supernet(torch.zeros(1, 1, 8, 8), torch.zeros(1), 0.25).numpy()).all()
    with pytest.raises(InputError, match="other data"):
        load_supernet(tmp_path, "0" * 64)


# --- beginning with weights that are there ----------------------------------------------------------------------------


def test_a_training_begins_with_the_weights_that_it_is_given(digits: ImageData, tmp_path: Path) -> None:
    train_supernet(settings(seed=1), digits, tmp_path / "first")
    given, _ = load_supernet(tmp_path / "first")
    still = {"start": str(tmp_path / "first"), "steps": 1, "lr": 1e-12}
    train_supernet(settings({"widths": (0.5, 1.0), "dropout": 0.1}, **still), digits, tmp_path / "second")
    begun, card = load_supernet(tmp_path / "second")
    assert card.network.widths == (0.5, 1.0)
    for name, weights in begun.widest.state_dict().items():
        torch.testing.assert_close(weights, given.widest.state_dict()[name], atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("network", "says"),
    [
        ({"base": 16}, "has base 8, these settings have 16"),
        ({"skips": "prefix"}, "has skips 'segment', these .* 'prefix'"),
    ],
)
def test_weights_of_another_network_cannot_be_begun_with(
    network: dict[str, Any], says: str, digits: ImageData, tmp_path: Path
) -> None:
    train_supernet(settings(steps=1), digits, tmp_path / "first")
    with pytest.raises(InputError, match=rf"training\.start: the supernet in .* {says}"):
        train_supernet(settings(network, start=str(tmp_path / "first")), digits, tmp_path / "second")
    with pytest.raises(InputError, match="no supernet card at"):
        train_supernet(settings(start=str(tmp_path / "absent")), digits, tmp_path / "second")


def test_weights_for_other_latents_cannot_be_begun_with(digits: ImageData, tmp_path: Path) -> None:
    side, whose = {"channels": 1, "resolution": 8}, {"image_channels": 3, "image_resolution": 64}
    made, other = (
        LatentSpace(autoencoder=f"/{name}", digest=name * 64, shift=(0.0,), scale=(1.0,), **side, **whose)
        for name in "ab"
    )
    begun = Supernet(NETWORK, 1, 8)
    save_supernet(begun, tmp_path / "latents", begun.diffusion, "made", "f" * 64, latents=made)
    train_supernet(settings(steps=1), digits, tmp_path / "pixels")
    given = Supernet(NETWORK, 1, 8)
    for folder, space, says in (
        ("latents", other, "works on latents of another autoencoder"),
        ("latents", None, "set data.autoencoder to its folder"),
        ("pixels", made, "works on pixels; leave out data.autoencoder"),
    ):
        with pytest.raises(InputError, match=rf"the supernet in {tmp_path / folder} .*{says}"):
            start_from(given, tmp_path / folder, given.diffusion, space)
    with pytest.raises(InputError, match=r"set data\.autoencoder to its folder"):
        train_supernet(settings(start=str(tmp_path / "latents")), digits, tmp_path / "student")
    start_from(given, tmp_path / "latents", given.diffusion, made)
    assert all(torch.equal(a, b) for a, b in zip(given.parameters(), begun.parameters(), strict=True))


def test_images_of_another_size_and_colour_leave_few_weights_to_be_drawn_anew(
    digits: ImageData, tmp_path: Path
) -> None:
    first = train_supernet(settings(steps=1), digits, tmp_path / "first")
    coloured = replace(digits, images=digits.images.repeat(3, axis=1).repeat(2, axis=2).repeat(2, axis=3))
    coloured = replace(coloured, held_out_images=coloured.images[:40])
    card = train_supernet(settings(start=str(tmp_path / "first"), steps=1, lr=1e-12), coloured, tmp_path / "second")
    begun, given = load_supernet(tmp_path / "second")[0], load_supernet(tmp_path / "first")[0]
    theirs, ours = given.widest.state_dict(), begun.widest.state_dict()
    fitting = [name for name in ours if name in theirs and theirs[name].shape == ours[name].shape]
    for name in fitting:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-9, rtol=0)
    assert card.made_with["started_from"]["digest"] == first.digest
    assert card.made_with["started_from"]["weights"] == sum(ours[name].numel() for name in fitting)
    assert 0.9 < card.made_with["started_from"]["weights"] / card.made_with["started_from"]["of"] < 1
