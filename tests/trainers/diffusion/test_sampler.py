"""Plans executed: reproducible noise, skipped steps, widths a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.plugins import SOLVERS
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.plan import SKIP, Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.supernet import Supernet

SCHEDULE = noise_schedule(DiffusionSettings())
TIMES = tuple(map(float, time_grid(SCHEDULE, "trailing", 6)))
MIXED = (0.25, 0.5, 0.5, 0.75, 1.0, 0.25)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def sampler(network: NetworkSettings, random_supernet: Callable[..., Supernet]) -> Sampler:
    supernet = random_supernet(network)
    return Sampler({w: supernet.subnet(w) for w in supernet.widths}, SCHEDULE, Noise(3, (1, 8, 8)), CPU, clip=True)


def images(sampler: Sampler, plan: Plan, count: int, batch: int) -> Tensor:
    return torch.cat(list(sampler.sample(plan, count, batch)))


# --- noise ------------------------------------------------------------------------------------------------------------


def batches(count: int, size: int) -> Iterator[range]:
    for first in range(0, count, size):
        yield range(first, min(first + size, count))


@pytest.mark.parametrize("size", [1, 2, 5, 7])
def test_noise_is_bit_identical_in_any_batches(size: int) -> None:
    noise = Noise(11, (3, 4, 4))
    assert np.array_equal(noise.initial(range(7)), np.concatenate([noise.initial(b) for b in batches(7, size)]))
    assert np.array_equal(
        noise.after_step(range(7), 2), np.concatenate([noise.after_step(b, 2) for b in batches(7, size)])
    )
    assert np.array_equal(noise.initial(range(7))[4:6], Noise(11, (3, 4, 4)).initial(range(4, 6)))


def test_noise_differs_between_seeds_images_and_steps() -> None:
    rows = [
        Noise(seed, (16,)).after_step(range(image, image + 1), step)[0]
        for seed in (0, 1, 2**40)
        for image in (0, 1, 5)
        for step in (-1, 0, 1, 999)  # -1 is the starting noise
    ]
    assert len({row.tobytes() for row in rows}) == len(rows)
    assert np.array_equal(Noise(0, (16,)).after_step(range(1), -1), Noise(0, (16,)).initial(range(1)))


def test_noise_is_standard_normal_and_uncorrelated_between_images_and_steps() -> None:
    noise = Noise(5, (64,))
    now, then = noise.initial(range(2000)).astype(float), noise.after_step(range(2000), 0).astype(float)
    n = now.size
    assert abs(now.mean()) < 4 / np.sqrt(n)
    assert abs(now.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs((now**4).mean() - 3) < 4 * np.sqrt(96 / n)
    assert abs((now * then).mean()) < 4 / np.sqrt(n)
    assert abs((now[1:] * now[:-1]).mean()) < 4 / np.sqrt(n)
    assert now.dtype == np.float64
    assert noise.initial(range(1)).dtype == np.float32


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS.ours)
def test_any_batch_size_gives_the_same_images(sampler: Sampler, solver: str) -> None:
    plan = Plan(TIMES, MIXED, solver)
    together = images(sampler, plan, 9, 9)
    assert together.shape == (9, 1, 8, 8)
    assert together.std() > 0.05
    for batch in (1, 4, 100):
        # Differences of earlier predictions multiply the last digits, in which batch sizes differ.
        torch.testing.assert_close(images(sampler, plan, 9, batch), together, rtol=0, atol=3e-5)


@pytest.mark.parametrize("solver", SOLVERS.ours)
def test_equal_batches_give_bit_identical_images_however_many_are_asked(sampler: Sampler, solver: str) -> None:
    plan = Plan(TIMES, MIXED, solver)
    assert torch.equal(images(sampler, plan, 12, 4)[:8], images(sampler, plan, 8, 4))


def test_another_seed_gives_other_images(sampler: Sampler) -> None:
    plan = Plan(TIMES, MIXED)
    other = replace(sampler, noise=replace(sampler.noise, seed=4))
    assert (images(sampler, plan, 2, 2) - images(other, plan, 2, 2)).abs().max() > 0.1


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m"])
@pytest.mark.parametrize("skipped", [{0}, {2}, {5}, {1, 2, 4}, {0, 1, 2, 3, 4}])
def test_a_plan_with_skips_is_the_plan_on_the_remaining_times(sampler: Sampler, solver: str, skipped: set[int]) -> None:
    kept = [i for i in range(6) if i not in skipped]
    with_skips = Plan(TIMES, tuple(SKIP if i in skipped else w for i, w in enumerate(MIXED)), solver)
    without = Plan(tuple(TIMES[i] for i in kept), tuple(MIXED[i] for i in kept), solver)
    assert torch.equal(images(sampler, with_skips, 4, 4), images(sampler, without, 4, 4))


class RenumberedNoise(Noise):
    """The noise of steps 0, 1, ... is that of the steps in `kept`."""

    kept: tuple[int, ...] = ()

    def after_step(self, images: range, step: int) -> np.ndarray:
        return super().after_step(images, self.kept[step])


@pytest.mark.parametrize("solver", ["ddpm", "ddpm_large"])
@pytest.mark.parametrize("kept", [(0, 1, 2, 3), (1, 3, 5), (2, 4)])
def test_skips_of_an_ancestral_plan_leave_every_other_step_its_own_noise(
    sampler: Sampler, solver: str, kept: tuple[int, ...]
) -> None:
    with_skips = Plan(TIMES, tuple(w if i in kept else SKIP for i, w in enumerate(MIXED)), solver)
    without = Plan(tuple(TIMES[i] for i in kept), tuple(MIXED[i] for i in kept), solver)
    noise = type("Renumbered", (RenumberedNoise,), {"kept": kept})(sampler.noise.seed, sampler.noise.shape)
    by_hand = images(replace(sampler, noise=noise), without, 4, 4)
    assert torch.equal(images(sampler, with_skips, 4, 4), by_hand)


def test_each_step_calls_the_network_of_its_width_at_its_time() -> None:
    calls: list[tuple[float, float]] = []

    def recording(width: float) -> Callable[[Tensor, Tensor], Tensor]:
        def denoise(x: Tensor, t: Tensor) -> Tensor:
            assert t.shape == (3,)
            calls.append((width, float(t[0])))
            return x

        return denoise

    widths = (0.5, SKIP, 1.0, 1.0, SKIP, 0.5)
    sampler = Sampler({w: recording(w) for w in (0.5, 1.0)}, SCHEDULE, Noise(0, (2,)), CPU)
    assert len(images(sampler, Plan(TIMES, widths), 3, 3)) == 3
    assert calls == [(0.5, TIMES[0]), (1.0, TIMES[2]), (1.0, TIMES[3]), (0.5, TIMES[5])]


def test_clip_keeps_every_predicted_clean_image_in_range() -> None:
    loud = Sampler({1.0: lambda x, t: -5 * x}, SCHEDULE, Noise(0, (2, 2)), CPU)
    plan = Plan(TIMES, (1.0,) * 6)
    assert images(loud, plan, 4, 4).abs().max() > 10
    assert images(replace(loud, clip=True), plan, 4, 4).abs().max() <= 1  # the last step returns the clean image


def test_unknown_widths_and_solvers_are_refused_with_what_is_possible(sampler: Sampler) -> None:
    with pytest.raises(InputError, match=r"width 0\.6; possible: 0\.25, 0\.375, 0\.5, 0\.75, 1\.0"):
        sampler.prepare(Plan(TIMES, (0.6,) * 6))
    with pytest.raises(InputError, match=r"'euler'; possible: ddim, ddpm, ddpm_large, dpmpp_2m"):
        sampler.prepare(Plan(TIMES, (1.0,) * 6, "euler"))


@pytest.mark.parametrize("solver", SOLVERS.ours)
def test_equal_prefix_keys_mean_equal_states(sampler: Sampler, solver: str) -> None:
    plans = [Plan(TIMES, MIXED, solver), Plan(TIMES, (*MIXED[:3], 0.25, SKIP, 1.0), solver)]
    runs = [sampler.prepare(plan) for plan in plans]
    keys = [[run.prefix_key(i) for i in range(len(run) + 1)] for run in runs]
    states = []
    for run in runs:
        state, trail = sampler.start(range(2)), []
        for position in range(len(run)):
            trail.append(state)
            state = sampler.step(state, run, position, range(2))
        states.append([*trail, state])
    shared = [i for i in range(6) if keys[0][i] == keys[1][i]]
    # From the fourth step on the widths differ.  The shorter plan of dpmpp_3m keeps less before it.
    assert shared == ([0, 1, 2] if solver == "dpmpp_3m" else [0, 1, 2, 3])
    for i in shared:
        assert torch.equal(states[0][i].x, states[1][i].x)
    assert not torch.equal(states[0][4].x, states[1][4].x)


@pytest.mark.parametrize("solver", SOLVERS.ours)
def test_prefix_keys_know_how_far_the_last_step_went(sampler: Sampler, solver: str) -> None:
    # The same two steps taken, but the second spans a gap in one of the plans.
    plans = [Plan(TIMES, MIXED, solver), Plan(TIMES, (*MIXED[:2], SKIP, *MIXED[3:]), solver)]
    runs = [sampler.prepare(plan) for plan in plans]
    assert [runs[0].prefix_key(i) == runs[1].prefix_key(i) for i in range(3)] == [True, True, False]
    ends = []
    for run in runs:
        state = sampler.start(range(2))
        for position in range(2):
            state = sampler.step(state, run, position, range(2))
        ends.append(state.x)
    assert not torch.equal(*ends)


@pytest.mark.parametrize(
    ("schedule", "before"), [("scaled_linear", 0.18), ("cosine", 0.12), ("flow", 0.14), ("edm", 0.29)]
)
def test_a_quadratic_grid_keeps_the_brightness_of_images(schedule: Any, before: float) -> None:
    """Images of one brightness of deviation 0.5, with pixels of deviation 0.1 about it, by their exact denoiser.

    `before` is the deviation of samples on the same rule from 0.8 T, which begins with pure noise too early.
    """
    betas = {"beta_first": 0.00085, "beta_last": 0.012} if schedule == "scaled_linear" else {}
    of_time, pixels = noise_schedule(DiffusionSettings(schedule=schedule, **betas)), 28 * 28

    def exact(x: Tensor, t: Tensor) -> Tensor:
        time = t.double().numpy()[:1]
        alpha, sigma = float(of_time.alpha(time)[0]), float(of_time.sigma(time)[0])
        mean = x.mean((1, 2, 3), keepdim=True)
        of_mean = sigma / (alpha**2 * (0.25 * pixels + 0.01) + sigma**2)
        return of_mean * mean + sigma * (x - mean) / (alpha**2 * 0.01 + sigma**2)

    def brightness(times: Any) -> float:
        sampler = Sampler({1.0: exact}, of_time, Noise(0, (1, 28, 28)), torch.device("cpu"))
        plan = Plan(tuple(times), (1.0,) * 20, "unipc_2")
        return float(torch.cat(list(sampler.sample(plan, 256, 256))).mean((1, 2, 3)).std())

    early = np.round(np.linspace(0, np.sqrt(800), 20) ** 2)[::-1].tolist()
    assert brightness(early) == pytest.approx(before, abs=0.01)
    assert 0.35 < brightness(time_grid(of_time, "quadratic", 20).tolist()) < 0.5
