"""The distance to a teacher over frequencies.  The golden numbers are numpy's, on its RandomState."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.random import RandomState
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.data import ImageData, to_float
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.card import read_card
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.training.batches import NoisyBatch
from stepfront.trainers.training.checkpoint_file import CHECKPOINT_FILE
from stepfront.trainers.training.teacher import frequency_weights, mean_amplitude, spectral_errors, weights_of_data
from stepfront.trainers.training.trainer import train_supernet
from stepfront.trainers.training.width_gradients import SpectralTerm, WidthGradients
from tests.trainers.training.test_trainer import KilledError, killed_at, settings


def golden(seed: int) -> Tensor:
    return torch.from_numpy(RandomState(seed).randn(2, 3, 8, 8))


def test_the_distance_gives_the_golden_numbers() -> None:
    taught, student, images = golden(7), golden(8), golden(9).clamp(-1, 1)
    amplitude = torch.from_numpy(np.abs(np.fft.fft2(images.numpy(), norm="ortho")))
    plain = 1 / amplitude.clamp(min=0.01)
    assert spectral_errors(student, taught, plain).mean().item() == pytest.approx(5.6281133835, abs=1e-9)
    weights = frequency_weights(amplitude, 0.01)
    assert spectral_errors(student, taught, weights).mean().item() == pytest.approx(2.0046024137, abs=1e-9)


def test_with_weights_of_one_it_is_the_distance_over_pixels() -> None:
    taught, student = golden(7), golden(8)
    errors = spectral_errors(student, taught, torch.ones(3, 8, 8))
    torch.testing.assert_close(errors, (student - taught).square().mean((1, 2, 3)))
    assert errors.mean().item() == pytest.approx(2.1347985186, abs=1e-9)
    half = spectral_errors(student.bfloat16(), taught.bfloat16(), torch.ones(3, 8, 8))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, errors.float(), rtol=0.02, atol=0)


def test_weights_are_those_of_the_mean_spectrum_with_a_floor_and_a_mean_of_one(digits: ImageData) -> None:
    weights = weights_of_data(digits.images)
    assert weights.shape == (1, 8, 8)
    assert weights.mean().item() == pytest.approx(1, abs=1e-6)
    amplitude = np.abs(np.fft.fft2(to_float(digits.images).double().numpy(), norm="ortho")).mean(0)
    np.testing.assert_allclose(mean_amplitude(digits.images).numpy(), amplitude, rtol=1e-9)
    by_hand = 1 / np.maximum(amplitude, np.quantile(amplitude, 0.1))
    np.testing.assert_allclose(weights.numpy(), by_hand / by_hand.mean(), rtol=1e-5)
    assert weights[0, 0, 0] == weights.min()  # the mean of the pixels is the largest amplitude


def test_frequencies_that_no_image_has_weigh_alike() -> None:
    images = np.zeros((20, 1, 8, 8), np.uint8)
    images[:] = RandomState(0).randint(0, 256, (20, 1, 1, 8))  # all rows of an image are alike
    weights = weights_of_data(images)[0]
    assert weights.isfinite().all()
    torch.testing.assert_close(weights[1:], weights[1, 0].expand(7, 8))
    assert weights.max() < 64 / 56 + 1e-6  # 56 of 64 frequencies are empty, and share the weight


def test_gradients_are_those_of_both_terms(
    network: NetworkSettings, random_supernet: Callable[..., Supernet], digits: ImageData
) -> None:
    supernet = random_supernet(network).train().requires_grad_(True)
    x, goal, taught = torch.randn(3, 4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    weights, factor = weights_of_data(digits.images), 0.7
    for weight in (None, torch.tensor([0.5, 1.0, 2.0, 3.0])):
        batch = NoisyBatch(x, torch.tensor([3, 99, 500, 999]), goal, None, weight)
        predicted = supernet(x, batch.t, 0.5)
        errors = (predicted - goal).square().mean((1, 2, 3)) + factor * spectral_errors(predicted, taught, weights)
        loss = (errors if weight is None else weight * errors).mean() * 0.5
        expected = torch.autograd.grad(loss, supernet.widest.head.weight)[0]
        gradients = WidthGradients(
            supernet, "plain", torch.autocast("cpu", enabled=False), SpectralTerm(factor, weights)
        )
        gradients.add(0.5, batch, goal, 0.5, taught)
        head: Tensor = supernet.widest.head.weight  # type: ignore[union-attr,assignment]
        assert head.grad is not None
        torch.testing.assert_close(head.grad, expected, rtol=1e-4, atol=1e-6)


def test_narrower_widths_alone_learn_from_the_widest_and_all_from_another_teacher(
    digits: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[tuple[float, Tensor | None]] = []
    goals: list[bool] = []
    predictions: dict[float, Tensor] = {}
    add = WidthGradients.add

    def kept(
        self: WidthGradients,
        width: float,
        batch: NoisyBatch,
        goal: Tensor,
        share: float,
        theirs: Tensor | None,
        depth: int | None,
    ) -> Tensor:
        taught.append((width, theirs))
        goals.append(torch.equal(goal, batch.target))
        predictions[width] = add(self, width, batch, goal, share, theirs, depth)
        return predictions[width]

    monkeypatch.setattr(WidthGradients, "add", kept)
    chosen = {"steps": 1, "distill_spectrum": 0.1, "samples_every": 0}
    train_supernet(settings({"widths": (0.5, 1.0)}, **chosen), digits, tmp_path / "teacher")
    assert taught == [(1.0, None), (0.5, predictions[1.0])]
    assert goals == [True, True]  # the target is still the noise alone
    taught.clear()
    student = settings({"widths": (0.5, 1.0)}, **chosen, teacher=str(tmp_path / "teacher"))
    train_supernet(student, digits, tmp_path / "student")
    assert [(width, theirs is None) for width, theirs in taught] == [(1.0, False), (0.5, False)]


def test_a_training_is_not_continued_with_another_teacher(digits: ImageData, tmp_path: Path) -> None:
    two, teacher, run = {"widths": (0.5, 1.0)}, tmp_path / "teacher", tmp_path / "run"
    for seed in (1, 2):
        train_supernet(settings(two, steps=1, seed=seed), digits, tmp_path / str(seed))
    shutil.copytree(tmp_path / "1", teacher)
    taught = settings(two, distill=0.5, teacher=str(teacher), steps=4, checkpoint_every=2)
    with pytest.raises(KilledError):
        train_supernet(taught, digits, run, killed_at(3))
    shutil.copytree(tmp_path / "2", teacher, dirs_exist_ok=True)
    digests = [read_card(tmp_path / name).digest for name in "12"]
    says = rf"{CHECKPOINT_FILE} learnt from a teacher with digest {digests[0][:12]}, and .* now has {digests[1][:12]}; "
    with pytest.raises(InputError, match=says + r"restore the former, or train with the latter"):
        train_supernet(taught, digits, run)
    with_digest = (run / CHECKPOINT_FILE).read_bytes()
    shutil.copytree(tmp_path / "1", teacher, dirs_exist_ok=True)
    card = train_supernet(taught, digits, run)
    assert card.digest == train_supernet(taught, digits, tmp_path / "whole").digest
    assert card.made_with["teacher"] == digests[0]
    # A checkpoint of 0.1, which does not name its teacher, is continued.
    (run / CHECKPOINT_FILE).write_bytes(with_digest)
    with safe_open(run / CHECKPOINT_FILE, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        old = {key: value for key, value in file.metadata().items() if key != "teacher"}
    save_file(tensors, run / CHECKPOINT_FILE, old)
    assert train_supernet(taught, digits, run).digest == card.digest
