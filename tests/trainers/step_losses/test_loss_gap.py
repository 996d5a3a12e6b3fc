"""The gap table against a computation by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.data import ImageData
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.schedule import noise_schedule
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import save_supernet
from stepfront.trainers.step_losses.loss_gap import gap_table, supernet_gap
from stepfront.trainers.validation import validate

SCHEDULE = noise_schedule(DiffusionSettings())
TIMES = (999.0, 400.0, 3.0)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def supernet(network: NetworkSettings, random_supernet: Callable[..., Supernet]) -> Supernet:
    return random_supernet(network)


def test_gap_is_the_growth_of_the_error_computed_by_hand(supernet: Supernet, digits: ImageData) -> None:
    pixels = digits.held_out_images[:5]
    denoisers = {width: supernet.subnet(width) for width in (0.25, 0.5, 1.0)}
    table = gap_table(denoisers, SCHEDULE, TIMES, pixels, CPU, seed=7)

    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    x0 = torch.tensor(pixels / 127.5 - 1, dtype=torch.float32)
    expected = np.zeros((3, 3))
    for row, time in enumerate(TIMES):
        eps = torch.from_numpy(Noise(7, (1, 8, 8)).after_step(range(5), row))
        a = alpha_bar[int(time)]
        x = float(a**0.5) * x0 + float((1 - a) ** 0.5) * eps
        for column, width in enumerate((0.25, 0.5, 1.0)):
            with torch.no_grad():
                predicted = supernet(x, torch.full((5,), time), width)
            expected[row, column] = ((predicted - eps) ** 2).mean()
    np.testing.assert_allclose(table, expected - expected[:, 2:], atol=1e-5)
    assert (table[:, :2] != 0).all()
    assert (table[:, 2] == 0).all()


def test_gap_of_a_known_error_is_that_error(digits: ImageData) -> None:
    # A network that is off by a constant has the square of it as its error, whatever the time.
    pixels = digits.held_out_images[:4]
    x0 = torch.from_numpy(pixels / 127.5 - 1)

    def off_by(error: float) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        def denoise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            times = t.double().numpy()
            alpha, sigma = (torch.from_numpy(f(times))[:, None, None, None] for f in (SCHEDULE.alpha, SCHEDULE.sigma))
            return ((x.double() - alpha * x0) / sigma + error).float()

        return denoise

    table = gap_table({1.0: off_by(0.0), 0.5: off_by(0.3), 0.25: off_by(-0.5)}, SCHEDULE, TIMES, pixels, CPU)
    np.testing.assert_allclose(table, [[0.25, 0.09, 0.0]] * 3, atol=1e-4)


def test_gap_is_the_same_every_time_and_another_with_another_seed(supernet: Supernet, digits: ImageData) -> None:
    denoisers = {width: supernet.subnet(width) for width in (0.25, 1.0)}
    tables = [gap_table(denoisers, SCHEDULE, TIMES, digits.held_out_images[:5], CPU, seed) for seed in (0, 0, 1)]
    assert np.array_equal(tables[0], tables[1])
    assert not np.array_equal(tables[0], tables[2])


@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample"])
def test_a_conditional_supernet_has_a_gap_whatever_it_predicts(
    network: NetworkSettings, digits: ImageData, prediction: str, tmp_path: Path
) -> None:
    diffusion = validate(DiffusionSettings, {"prediction": prediction})
    supernet = Supernet(network.model_copy(update={"classes": 10}), 1, 8, diffusion)
    for parameter in supernet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    card = save_supernet(supernet, tmp_path, diffusion, "digits", "")
    weights = {name: value.numpy() for name, value in supernet.widest.state_dict().items()}
    pixels, labels = digits.held_out_images[:4], np.array([0, 3, 3, 9])
    table = supernet_gap(card, weights, TIMES, pixels, labels, CPU)
    known = torch.from_numpy(labels)
    by_hand = {width: lambda x, t, w=width: supernet.subnet(w)(x, t, known) for width in network.widths}
    np.testing.assert_allclose(table, gap_table(by_hand, noise_schedule(diffusion), TIMES, pixels, CPU), rtol=1e-6)
    others = supernet_gap(card, weights, TIMES, pixels, np.array([1, 1, 1, 1]), CPU)
    assert not np.allclose(table, others)
