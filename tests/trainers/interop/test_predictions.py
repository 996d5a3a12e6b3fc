"""Imported networks of every prediction sample what diffusers' own schedulers sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.interop.scheduler_file import read_scheduler
from stepfront.trainers.interop.unet2d import export_unet2d, import_unet2d
from stepfront.trainers.networks.supernet_files import load_supernet
from stepfront.trainers.noise_schedule import noise_schedule
from tests.trainers.interop.test_model_folders import small

diffusers = pytest.importorskip("diffusers")
TIMES = (999, 700, 400, 100)
SHAPE = (3, 8, 8)


def ours(directory: Path) -> tuple[Tensor, Any]:
    """Return the images [2, C, H, W] of four DDIM steps, and the noise schedule."""
    supernet, card = load_supernet(directory)
    schedule = noise_schedule(card.diffusion)
    sampler = Sampler({1.0: supernet.subnet(1.0)}, schedule, Noise(0, SHAPE), torch.device("cpu"))
    return next(sampler.sample(Plan(tuple(map(float, TIMES)), (1.0,) * 4, "ddim"), 2, 2)), schedule


@torch.no_grad()
def theirs(scheduler: Any, schedule: Any) -> Tensor:
    """Return the same images by a scheduler of diffusers, at the same noise levels."""
    alpha, sigma = (f(np.array(TIMES, dtype=float)) for f in (schedule.alpha, schedule.sigma))
    x, network = torch.from_numpy(Noise(0, SHAPE).initial(range(2))), small()
    if isinstance(scheduler, diffusers.DDIMScheduler):
        scheduler.set_timesteps(len(TIMES))
        for i, t in enumerate(TIMES):
            predicted = network(x, t).sample
            share = float(scheduler.alphas_cumprod[t])
            if scheduler.config.prediction_type == "v_prediction":
                x0 = share**0.5 * x - (1 - share) ** 0.5 * predicted
            else:
                x0 = predicted
            eps = (x - share**0.5 * x0) / (1 - share) ** 0.5
            after = float(scheduler.alphas_cumprod[TIMES[i + 1]]) if i + 1 < len(TIMES) else 1.0
            x = after**0.5 * x0 + (1 - after) ** 0.5 * eps
        return x
    if isinstance(scheduler, diffusers.FlowMatchEulerDiscreteScheduler):
        s = sigma / (alpha + sigma)
        scheduler.set_timesteps(sigmas=s.tolist())
        x = x / float(alpha[0] + sigma[0])
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, t).sample, t, x).prev_sample
        return x
    scheduler.set_timesteps(len(TIMES))
    scheduler.sigmas = torch.from_numpy(np.append(sigma / alpha, 0.0))
    scheduler.timesteps = scheduler.precondition_noise(scheduler.sigmas[:-1])
    x = x / float(alpha[0])
    for t in scheduler.timesteps:
        x = scheduler.step(network(scheduler.scale_model_input(x, t).float(), t).sample, t, x).prev_sample
    return x.float()


SCHEDULERS = {
    "v": lambda: diffusers.DDIMScheduler(prediction_type="v_prediction", clip_sample=False),
    "sample": lambda: diffusers.DDIMScheduler(prediction_type="sample", clip_sample=False),
    "flow": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0),
    "edm": diffusers.EDMEulerScheduler,
}


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_an_imported_network_samples_as_its_scheduler_does_and_goes_back(kind: str, tmp_path: Path) -> None:
    scheduler = SCHEDULERS[kind]()
    small().save_pretrained(tmp_path / "model" / "unet")
    scheduler.save_pretrained(tmp_path / "model" / "scheduler")
    card = import_unet2d(tmp_path / "model" / "unet", tmp_path / "ours", (0.5, 1.0), sort=False)
    assert card.diffusion.prediction == kind
    images, schedule = ours(tmp_path / "ours")
    expected = theirs(scheduler, schedule)
    torch.testing.assert_close(images, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    export_unet2d(tmp_path / "ours", tmp_path / "back")
    assert read_scheduler(tmp_path / "back" / "scheduler_config.json") == card.diffusion
    again = import_unet2d(tmp_path / "back", tmp_path / "again", (0.5, 1.0), sort=False)
    assert (again.digest, again.diffusion) == (card.digest, card.diffusion)


def test_betas_are_refused_for_a_schedule_without_betas(tmp_path: Path) -> None:
    small().save_pretrained(tmp_path / "unet")
    SCHEDULERS["flow"]().save_pretrained(tmp_path / "scheduler")
    with pytest.raises(InputError, match="has the schedule flow, which has no betas; leave out --betas"):
        import_unet2d(tmp_path / "unet", tmp_path / "ours", (0.5, 1.0), diffusion=DiffusionSettings())
