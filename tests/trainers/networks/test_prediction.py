"""Networks that predict something else than the noise: an oracle of each kind gives back the noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.inference.engine import Engine
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.prediction import NoiseConversion, Targets
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.noise_schedule import noise_schedule

KINDS = ["epsilon", "v", "sample", "flow", "edm"]
CPU = torch.device("cpu")


def noisy(diffusion: DiffusionSettings, times: list[float]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return x_0, eps, x_t [N, 1, 4, 4], and alpha and sigma [N, 1, 1, 1] at the times."""
    x0, eps = torch.randn(2, len(times), 1, 4, 4, generator=torch.Generator().manual_seed(0))
    schedule = noise_schedule(diffusion)
    alpha, sigma = (
        torch.from_numpy(f(np.array(times))).float()[:, None, None, None] for f in (schedule.alpha, schedule.sigma)
    )
    return x0, eps, alpha * x0 + sigma * eps, alpha, sigma


def oracle(kind: str, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Return what a perfect network of the kind outputs, by the papers' own definitions."""
    if kind == "v":
        return alpha * eps - sigma * x0
    if kind == "sample":
        return x0
    if kind == "flow":
        return eps - x0
    if kind == "edm":  # F such that c_skip x + c_out F = x_0, at x = x_0 + level eps
        level = sigma / alpha
        skip, out = 0.25 / (level**2 + 0.25), level * 0.5 / (level**2 + 0.25).sqrt()
        return (x0 - skip * (x0 + level * eps)) / out
    return eps


@pytest.mark.parametrize("schedule", ["linear", "flow", "edm"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_network_gives_the_noise_also_between_training_times(kind: str, schedule: str) -> None:
    diffusion = DiffusionSettings.model_validate({"prediction": kind, "schedule": schedule})
    times = [0.0, 0.5, 3.25, 200.0, 640.75, 999.0]
    x0, eps, x, alpha, sigma = noisy(diffusion, times)
    read: list[tuple[Tensor, Tensor]] = []

    def network(given: Tensor, told: Tensor) -> Tensor:
        read.append((given, told))
        return oracle(kind, x0, eps, alpha, sigma)

    found = NoiseConversion(diffusion)(network, x, torch.tensor(times))
    # At time 0 the noise is a hundredth of the image or less, so its error is that of float32 times as much.
    torch.testing.assert_close(found * sigma, eps * sigma, rtol=1e-4, atol=2e-5)
    given, told = read[0]
    if kind == "flow":
        s = sigma / (alpha + sigma)
        torch.testing.assert_close(given, (1 - s) * x0 + s * eps, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(told, 1000 * s.flatten(), rtol=1e-4, atol=1e-2)
    elif kind == "edm":
        level = sigma / alpha
        torch.testing.assert_close(given, (x0 + level * eps) / (level**2 + 0.25).sqrt(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(told, level.log().flatten() / 4, rtol=1e-4, atol=1e-4)
    else:
        assert torch.equal(given, x)
        assert torch.equal(told, torch.tensor(times))


@pytest.mark.parametrize("kind", KINDS)
def test_training_targets_are_what_a_perfect_network_outputs(kind: str) -> None:
    diffusion = DiffusionSettings.model_validate({"prediction": kind})
    times = [0.0, 10.0, 500.0, 999.0]
    x0, eps, x, alpha, sigma = noisy(diffusion, times)
    targets = Targets.of(diffusion, CPU)
    at = torch.tensor(times).long()
    _, _, target = targets.at(at, x, x0, eps)
    torch.testing.assert_close(target, oracle(kind, x0, eps, alpha, sigma), rtol=1e-3, atol=1e-4)
    wrong = NoiseConversion(diffusion)(lambda *given: target + 1.0, x, torch.tensor(times))
    right = NoiseConversion(diffusion)(lambda *given: target, x, torch.tensor(times))
    expected = targets.in_noise[at][:, None, None, None].expand_as(x)
    torch.testing.assert_close((wrong - right).abs(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["v", "edm"])
def test_subnets_convert_as_the_supernet_does_and_in_float32_beside_a_network_in_bfloat16(
    kind: str, network: NetworkSettings, random_supernet: Callable[..., Supernet]
) -> None:
    diffusion = DiffusionSettings.model_validate({"prediction": kind})
    plain = random_supernet(network)
    supernet = Supernet(network, 1, 8, diffusion).eval()
    supernet.load_state_dict(plain.state_dict())  # conversions add nothing to the weights
    x, t = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([0.0, 37.5, 999.0])
    with torch.no_grad():
        for width in supernet.widths:
            assert torch.equal(supernet.subnet(width)(x, t), supernet(x, t, width))
        exact = supernet(x, t)
        assert not torch.equal(exact, plain(x, t))
        halved: Any = Engine(precision="bfloat16").run(supernet.subnet(1.0), CPU, 3)
        torch.testing.assert_close(halved(x, t), exact, rtol=0.1, atol=0.1 * float(exact.abs().max()))
    table = supernet.subnet(1.0).to(torch.bfloat16).to_noise._half_log_snr  # type: ignore[union-attr]
    assert table.dtype == torch.float32


def test_schedules_of_flow_and_edm_have_their_noise_levels() -> None:
    schedule = noise_schedule(DiffusionSettings(schedule="edm", steps=500))
    levels = schedule.sigma(np.arange(500.0)) / schedule.alpha(np.arange(500.0))
    np.testing.assert_allclose(levels[[0, -1]], [0.002, 80], rtol=1e-6)
    np.testing.assert_allclose(np.diff(np.log(levels)), np.log(40_000) / 499, rtol=1e-6)
    for shift in (1.0, 3.0):
        schedule = noise_schedule(DiffusionSettings(schedule="flow", steps=9, shift=shift))
        alpha, sigma = schedule.alpha(np.arange(9.0)), schedule.sigma(np.arange(9.0))
        s = np.arange(1, 10) / 10
        np.testing.assert_allclose(sigma / (alpha + sigma), shift * s / (1 + (shift - 1) * s), rtol=1e-9)
