"""What a step learns: predictions of other kinds, weights per time and width, one width per step, and a teacher."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.config import DiffusionSettings, TrainerSettings
from stepfront.trainers.data import ImageData
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import load_supernet
from stepfront.trainers.noise_schedule import noise_schedule
from stepfront.trainers.training.batches import BatchSource, NoiseTable, NoisyBatch, loss_weights, step_generator
from stepfront.trainers.training.distributed import Group
from stepfront.trainers.training.sandwich import choose_widths, share_of
from stepfront.trainers.training.trainer import train_supernet
from stepfront.trainers.training.width_gradients import WidthGradients
from stepfront.trainers.training_settings import TrainingSettings
from tests.trainers.training.test_trainer import settings

CPU = torch.device("cpu")
FLOAT32 = torch.autocast("cpu", torch.bfloat16, enabled=False)


def batch_of(data: ImageData, chosen: TrainerSettings) -> NoisyBatch:
    source = BatchSource(chosen, data, NoiseTable(noise_schedule(chosen.diffusion), CPU), Group(), CPU)
    return source.noisy(source.draw(step_generator(0, 0))[0])


def test_weights_are_those_of_the_papers() -> None:
    schedule = noise_schedule(DiffusionSettings())
    snr = schedule.alpha_bar / (1 - schedule.alpha_bar)
    assert loss_weights(TrainingSettings(), schedule) is None
    min_snr = loss_weights(TrainingSettings(loss_weight="min_snr"), schedule)
    assert min_snr is not None
    assert min_snr[-1] == 1.0  # hardly any signal: SNR < 5
    np.testing.assert_allclose(min_snr[0], 5 / snr[0])
    p2 = loss_weights(TrainingSettings(loss_weight="p2"), schedule)
    assert p2 is not None
    np.testing.assert_allclose(p2, 1 - schedule.alpha_bar)  # 1 / (1 + SNR) is the share of the noise


@pytest.mark.parametrize("prediction", ["v", "sample"])
def test_weights_count_in_the_noise_whatever_is_predicted(digits: ImageData, prediction: str) -> None:
    # Hang et al. 2023, section 3.4: the weight of min_snr is min(SNR, 5) / (SNR + 1) for v, and min(SNR, 5) for x_0.
    chosen = settings(batch=64, loss_weight="min_snr")
    chosen = chosen.model_copy(update={"diffusion": DiffusionSettings.model_validate({"prediction": prediction})})
    batch = batch_of(digits, chosen)
    share = torch.from_numpy(noise_schedule(chosen.diffusion).alpha_bar).float()[batch.t.long()]
    snr = share / (1 - share)
    least = snr.clamp(max=5)
    assert batch.weight is not None
    torch.testing.assert_close(batch.weight, least / (snr + 1) if prediction == "v" else least, rtol=1e-4, atol=1e-7)


def test_weighted_gradients_are_those_of_the_weighted_loss(
    digits: ImageData, network: NetworkSettings, random_supernet: Callable[..., Supernet]
) -> None:
    supernet = random_supernet(network).train().requires_grad_(True)
    batch = batch_of(digits, settings(batch=6, loss_weight="p2"))
    assert batch.weight is not None
    errors = (supernet(batch.x, batch.t, 0.5) - batch.target).square().mean((1, 2, 3))
    expected = torch.autograd.grad((batch.weight * errors).mean() * 0.5, supernet.widest.head.weight)[0]
    gradients = WidthGradients(supernet, "plain", FLOAT32)
    gradients.add(0.5, batch, batch.target, 0.5)
    head: Tensor = supernet.widest.head.weight  # type: ignore[union-attr,assignment]
    assert head.grad is not None
    torch.testing.assert_close(head.grad, expected, rtol=1e-4, atol=1e-6)


def test_one_width_per_step_is_narrow_more_often() -> None:
    training, generator = TrainingSettings(rule="single", narrowest_share=3.0), torch.Generator().manual_seed(0)
    drawn = Counter(choose_widths(training, (0.25, 0.5, 1.0), generator)[0] for _ in range(6000))
    # Probabilities 3 : 2 : 1; three standard deviations of 6,000 draws are 0.02.
    for width, expected in ((0.25, 3 / 6), (0.5, 2 / 6), (1.0, 1 / 6)):
        assert abs(drawn[width] / 6000 - expected) < 0.02


def test_a_factor_per_width_scales_its_loss() -> None:
    training = TrainingSettings(batch=8, width_weights=(0.5, 2.0))
    assert share_of(training, (0.5, 1.0), 0.5, 4) == 0.25
    assert share_of(training, (0.5, 1.0), 1.0, 8) == 2.0
    assert share_of(TrainingSettings(batch=8), (0.5, 1.0), 0.5, 4) == 0.5


@pytest.mark.parametrize("prediction", ["v", "flow", "edm"])
def test_a_network_of_another_prediction_learns(digits: ImageData, tmp_path: Path, prediction: str) -> None:
    chosen = settings(steps=60, batch=16, lr=4e-3, ema=0.9, checkpoint_every=60, held_out_images=64, rule="single")
    chosen = chosen.model_copy(update={"diffusion": DiffusionSettings.model_validate({"prediction": prediction})})
    card = train_supernet(chosen, digits, tmp_path)
    # The losses are of the noise, whatever is predicted, so trainings can be compared.  A guess of zero has 1.
    assert float(card.made_with["held_out_losses"]["1.0"]) < 0.7
    assert load_supernet(tmp_path)[0].diffusion.prediction == prediction


def test_a_teacher_alone_gives_its_own_predictions_as_targets(digits: ImageData, tmp_path: Path) -> None:
    train_supernet(settings(steps=3), digits, tmp_path / "teacher")
    teacher, card = load_supernet(tmp_path / "teacher")
    chosen = settings(steps=1, batch=8, distill=1.0, teacher=str(tmp_path / "teacher"), rule="single")
    with pytest.MonkeyPatch.context() as patch:
        goals: list[Tensor] = []
        add = WidthGradients.add

        def kept(
            self: WidthGradients,
            width: float,
            batch: NoisyBatch,
            goal: Tensor,
            share: float,
            taught: Tensor,
            depth: None,
        ) -> Tensor:
            goals.append(goal)
            torch.testing.assert_close(goal, teacher(batch.x, batch.t), rtol=1e-4, atol=1e-5)
            return add(self, width, batch, goal, share, taught, depth)

        patch.setattr(WidthGradients, "add", kept)
        student = train_supernet(chosen, digits, tmp_path / "student")
    assert len(goals) == 1
    assert student.made_with["teacher"] == card.digest
    assert not F.mse_loss(goals[0], torch.zeros_like(goals[0])).isnan()


def test_a_teacher_that_predicts_something_else_is_refused(digits: ImageData, tmp_path: Path) -> None:
    train_supernet(settings(steps=1), digits, tmp_path / "teacher")
    chosen = settings(steps=1, distill=0.5, teacher=str(tmp_path / "teacher"))
    chosen = chosen.model_copy(update={"diffusion": DiffusionSettings(prediction="v")})
    with pytest.raises(InputError, match=r"training\.teacher: .* has diffusion\.prediction epsilon, this .* has v"):
        train_supernet(chosen, digits, tmp_path / "student")
    with pytest.raises(InputError, match="teacher"):
        train_supernet(settings(distill=0.5, teacher=str(tmp_path / "none")), digits, tmp_path / "student")


@pytest.mark.parametrize(
    ("training", "says"),
    [
        ({"teacher": "runs/other"}, "needs training.distill above 0"),
        ({"rule": "single", "distill": 0.5}, "training.distill needs the widest network in every step"),
        ({"rule": "single", "distill_spectrum": 0.1}, "distill_spectrum needs the widest network in every step"),
        ({"width_weights": (1.0, 0.0)}, "positive factors"),
    ],
)
def test_settings_that_cannot_go_together_are_refused(training: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        TrainingSettings(**training)
    with pytest.raises(ValidationError, match="has 2 factors for the 4 widths"):
        TrainerSettings(training=TrainingSettings(width_weights=(1.0, 2.0)))
