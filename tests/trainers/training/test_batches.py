"""Batches are a function of (seed, step), and the processes of a group share them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stepfront.trainers.data import ImageData
from stepfront.trainers.diffusion.schedule import noise_schedule
from stepfront.trainers.training.batches import BatchSource, NoiseTable, step_generator, step_seed
from stepfront.trainers.training.distributed import Group
from tests.trainers.training.test_trainer import settings

CPU = torch.device("cpu")


def drawn(data: ImageData, step: int, group: Group, **training: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return noisy images, times and noise of this process's micro-batches, one after the other."""
    chosen = settings(flip=True, batch=7, **training)
    source = BatchSource(chosen, data, NoiseTable(noise_schedule(chosen.diffusion), CPU), group, CPU)
    batches = [source.noisy(batch) for batch in source.draw(step_generator(0, step))]
    return (
        torch.cat([batch.x for batch in batches]),
        torch.cat([batch.t for batch in batches]),
        torch.cat([batch.target for batch in batches]),
    )


@pytest.mark.parametrize(("size", "parts"), [(1, 1), (1, 3), (2, 1), (2, 2)])
def test_however_many_share_a_batch_it_is_the_same(digits: ImageData, size: int, parts: int) -> None:
    alone = drawn(digits, 3, Group())
    shared = [drawn(digits, 3, Group(rank, size), accumulate=parts) for rank in range(size)]
    for column, expected in enumerate(alone):
        assert torch.equal(torch.cat([part[column] for part in shared]), expected)


def test_steps_draw_different_batches(digits: ImageData) -> None:
    assert not torch.equal(drawn(digits, 3, Group())[2], drawn(digits, 4, Group())[2])


def test_noisy_images_are_alpha_x0_plus_sigma_eps(digits: ImageData) -> None:
    schedule = noise_schedule(settings().diffusion)
    t = torch.tensor([0, 400, 999])
    x0, eps = torch.full((3, 1, 2, 2), 0.5), torch.full((3, 1, 2, 2), -2.0)
    noisy = NoiseTable(schedule, CPU).add_noise(x0, t, eps)
    times = t.double().numpy()
    expected = torch.from_numpy(schedule.alpha(times) * 0.5 - 2 * schedule.sigma(times))
    torch.testing.assert_close(noisy[:, 0, 0, 0].double(), expected, atol=1e-6, rtol=0)


def test_seeds_of_steps_are_all_different_and_fit_a_generator() -> None:
    seeds = {step_seed(seed, step) for seed in range(20) for step in range(-1, 50)}
    assert len(seeds) == 20 * 51
    assert max(seeds) < 2**62
