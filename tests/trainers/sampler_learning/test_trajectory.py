"""The differentiable loop: golden distances and gradients, and the images of the sampler that is deployed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.diffusion.conditioning import Condition
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.plan_run import PlanRun
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import noise_schedule
from stepfront.trainers.diffusion.solvers import find_solver
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.sampler_learning.pairs import Pairs
from stepfront.trainers.sampler_learning.times import falling_times
from stepfront.trainers.sampler_learning.trajectory import run, student_of


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(
    ("solver", "distance", "gradient"),
    [
        ("ddim", 0.2481925090, (-0.09887017, -0.07275985, -0.10835961, -0.06219522, 0.34218485)),
        ("dpmpp_2m", 0.2317522769, (-0.10458502, -0.07537735, -0.10826465, -0.07129685, 0.35952387)),
    ],
)
def test_golden_gradients(
    plane: Sampler,
    golden_pairs: Callable[[int, int], Pairs],
    solver: str,
    distance: float,
    gradient: tuple[float, ...],
    recompute: bool,
) -> None:
    pairs = golden_pairs(0, 8)
    theta = torch.tensor([0.1, -0.2, 0.3, 0.0, 0.5], dtype=torch.float64, requires_grad=True)
    times = falling_times(theta, 999.0, 0.0)
    coefficients = find_solver(solver)(plane.schedule, times)
    x = run(student_of(plane, (1.0,) * 5), coefficients, times, pairs.noise, recompute=recompute)
    found = (x - pairs.target).square().sum(1).mean()
    found.backward()
    assert found.item() == pytest.approx(distance, abs=1e-9)
    assert theta.grad is not None
    assert theta.grad.tolist() == pytest.approx(gradient, abs=1e-8)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("guidance", [None, 1.0, 2.5])
def test_it_makes_the_images_of_the_sampler(
    random_supernet: Callable[..., Supernet], network: NetworkSettings, guidance: float | None, clip: bool
) -> None:
    classes = None if guidance is None else 3
    supernet = random_supernet(network.model_copy(update={"classes": classes}))
    condition = None if guidance is None else Condition(5, (2, 1, 1), guidance)
    denoisers = {width: supernet.subnet(width) for width in (0.5, 1.0)}
    schedule = noise_schedule(DiffusionSettings())
    sampler = Sampler(denoisers, schedule, Noise(3, (1, 8, 8)), torch.device("cpu"), clip=clip, condition=condition)
    lower = ((0.1, 0, 0), (0.05, -0.1, 0), (0.02, 0.1, -0.1))
    learnt = LearntSampler("dpmpp_2m", (900.0, 500.5, 99.0), (880.0, 510.0, 99.0), lower, lower)
    plan = Plan(learnt.times, (0.5, 1.0, 0.5), "dpmpp_2m", learnt)
    deployed = next(sampler.sample(plan, 4, 4))
    labels = None if condition is None else torch.from_numpy(condition.labels(range(4)))
    prepared = PlanRun(plan, schedule)
    told = torch.tensor(prepared.network_times, dtype=torch.float64)
    noise = sampler.noise.on(sampler.device, sampler.dtype, range(4))
    found = run(student_of(sampler, plan.widths), prepared.coefficients, told, noise, labels)
    torch.testing.assert_close(found, deployed, rtol=1e-4, atol=1e-4)
