"""Weights fitted to a plan: what they are trained on, and what the training brings."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.adaptation.plan_weights import Call, FittedWeights, check_fits, fit_weights
from stepfront.trainers.config import DiffusionSettings, Prediction, TrainerSettings
from stepfront.trainers.data import ImageData
from stepfront.trainers.network_settings import PROMPTED, NetworkSettings
from stepfront.trainers.networks.prediction import conversion
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.noise_schedule import noise_schedule
from stepfront.trainers.training.batches import NoisyBatch
from stepfront.trainers.training.width_gradients import WidthGradients
from stepfront.trainers.training_settings import AdaptSettings, TrainingSettings

NETWORK = NetworkSettings(base=8, multipliers=(1, 2), groups=4, group_channels=2, widths=(0.5, 1.0))
TIMES = {0.5: (900.0, 700.0, 400.0), 1.0: (100.0,)}
CALLS = {width: tuple(Call(time, time) for time in times) for width, times in TIMES.items()}
MakeSupernet = Callable[..., Supernet]


def fitted(
    supernet: Supernet, data: ImageData, seed: int = 0, steps: int = 6, calls: dict[float, tuple[Call, ...]] = CALLS
) -> FittedWeights:
    training = TrainingSettings(batch=8, seed=seed, ema=0, held_out_images=32)
    settings = TrainerSettings(network=NETWORK, training=training, diffusion=supernet.diffusion)
    return fit_weights(supernet, settings, AdaptSettings(lr=3e-3, warmup=1), data, calls, steps)


def state(supernet: Supernet) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in supernet.state_dict().items()}


def test_each_width_learns_noise_and_teacher_at_its_own_times(
    digits: ImageData, random_supernet: MakeSupernet, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, NoisyBatch, Tensor, float]] = []
    original = WidthGradients.add

    def add(self: WidthGradients, width: float, batch: NoisyBatch, target: Tensor, share: float) -> object:
        seen.append((width, batch, target.clone(), share))
        return original(self, width, batch, target, share)

    monkeypatch.setattr(WidthGradients, "add", add)
    supernet = random_supernet(NETWORK)
    before = state(supernet)
    fit = fitted(supernet, digits)
    schedule, times = noise_schedule(supernet.diffusion), {width: set[float]() for width in TIMES}
    for width, batch, target, share in seen:
        assert share == len(batch.x) / 8 == len(TIMES[width]) / 4
        times[width] |= set(batch.t.tolist())
        alpha, sigma = (f(batch.t.double())[:, None, None, None] for f in (schedule.alpha, schedule.sigma))
        x0 = (batch.x - sigma * batch.target) / alpha  # images lie within [-1, 1], and noise does not
        assert x0.abs().max() < 1 + 1e-3
        with torch.no_grad():
            taught = supernet(batch.x, batch.t, 1.0)
        torch.testing.assert_close(target, (batch.target + taught) / 2)
    assert times == {width: set(own) for width, own in TIMES.items()}
    assert fit.images == 6 * 8
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())


@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample", "flow", "edm"])
def test_the_loss_at_the_plan_s_times_falls(
    digits: ImageData, random_supernet: MakeSupernet, prediction: Prediction
) -> None:
    supernet = random_supernet(NETWORK, diffusion=DiffusionSettings(prediction=prediction))
    fit = fitted(supernet, digits, steps=20)
    assert fit.loss_after < fit.loss_before
    x0 = torch.from_numpy(digits.held_out_images[digits.held_out_sample(32)]).float() / 127.5 - 1
    eps, schedule = (
        torch.randn(x0.shape, generator=torch.Generator().manual_seed(5)),
        noise_schedule(supernet.diffusion),
    )
    for width, times in TIMES.items():
        t = torch.tensor(times).repeat(32)
        x, noise = x0.repeat_interleave(len(times), 0), eps.repeat_interleave(len(times), 0)
        alpha, sigma = (f(t.double()).float()[:, None, None, None] for f in (schedule.alpha, schedule.sigma))
        with torch.no_grad():
            old, new = (one(alpha * x + sigma * noise, t, width) - noise for one in (supernet, fit.supernet))
        assert new.square().mean() < old.square().mean()


@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample", "flow", "edm"])
def test_a_target_is_the_output_that_gives_the_noise_where_the_network_is_told_another_time(
    digits: ImageData, random_supernet: MakeSupernet, monkeypatch: pytest.MonkeyPatch, prediction: Prediction
) -> None:
    diffusion = DiffusionSettings(prediction=prediction)
    seen: list[tuple[NoisyBatch, Tensor]] = []
    monkeypatch.setattr(WidthGradients, "add", lambda self, width, batch, goal, share: seen.append((batch, goal)))
    supernet = random_supernet(NETWORK, diffusion=diffusion)
    calls = {1.0: (Call(400.0, 380.5),)}
    fitted(supernet, digits, steps=1, calls=calls)
    ((batch, goal),) = seen
    time, told = torch.tensor([400.0, 380.5], dtype=torch.float64)
    schedule = noise_schedule(diffusion)
    at = conversion(diffusion, schedule.half_log_snr(told), told)
    torch.testing.assert_close(batch.t.double(), at.told.expand(len(batch.t)), rtol=1e-6, atol=0)
    x = batch.x.double() / at.scale
    noise = at.of_x * x + at.of_output * batch.target.double()
    x0 = (x - schedule.sigma(time) * noise) / schedule.alpha(time)
    assert x0.abs().max() < 1 + 1e-3  # images lie within [-1, 1], and noise does not
    with torch.no_grad():
        taught = supernet(x.float(), time.float().expand(len(x)), 1.0)
    mixed = at.of_x * x + at.of_output * goal.double()
    torch.testing.assert_close(mixed, (noise + taught.double()) / 2, rtol=1e-3, atol=1e-4)


def test_equal_seeds_give_equal_weights(digits: ImageData, random_supernet: MakeSupernet) -> None:
    supernet = random_supernet(NETWORK)
    first, same, other = (state(fitted(supernet, digits, seed, 2).supernet) for seed in (0, 0, 1))
    assert all(torch.equal(value, same[name]) for name, value in first.items())
    assert not all(torch.equal(value, other[name]) for name, value in first.items())


def test_dropout_is_the_same_at_each_fit_and_leaves_the_caller_s_generator(
    digits: ImageData, random_supernet: MakeSupernet
) -> None:
    supernet = random_supernet(NETWORK.model_copy(update={"dropout": 0.3}))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = fitted(supernet, digits, steps=2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)  # whatever the caller draws meanwhile
    same = fitted(supernet, digits, steps=2)
    assert all(torch.equal(value, state(same.supernet)[name]) for name, value in state(first.supernet).items())
    assert (first.loss_before, first.loss_after) == (same.loss_before, same.loss_after)
    # It is dropout that draws: without it the weights are others.
    without = random_supernet(NETWORK)
    without.load_state_dict(supernet.state_dict())
    plain = fitted(without, digits, steps=2)
    assert plain.loss_before == first.loss_before  # of networks that drop nothing
    assert plain.loss_after != first.loss_after


def test_a_prompted_network_is_refused_in_one_line(random_supernet: MakeSupernet) -> None:
    supernet = random_supernet(NETWORK)
    supernet.settings = supernet.settings.model_copy(update={"family": PROMPTED})
    with pytest.raises(InputError, match="a network of family unet2d_condition is searched as it is; weights can't be"):
        check_fits(supernet)
