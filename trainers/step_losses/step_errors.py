"""Measure the error of single steps at each width, from the states of one teacher's trajectory.

    c_ij^w = mean_n || step_w(x_i -> t_j) - x_j ||

x_i are states of DDIM at full width on many steps, and step_w is one DDIM step with the noise that width w predicts:
GITS' cost (arXiv 2405.11326) for several widths.  The states are variance-preserving, as the network sees them.  In
the state divided by alpha, errors at the noisy end would outweigh all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import NoiseSchedule, time_grid
from stepfront.trainers.step_losses.error_table import StepErrors

TEACHER_STEPS = 64
"""Steps of the teacher, beside those at the times that are asked for."""

IMAGES = 32
"""Images that the errors are means over."""

SEED = (1 << 62) + 14
"""Noise seed of the trajectory, far from those of scores and of learning."""

Step = tuple[float, float | None]
"""The times from and to which a step goes; None stands for the clean image."""


@torch.inference_mode()
def step_errors(sampler: Sampler, steps: Sequence[Step], images: int = IMAGES) -> StepErrors:
    """Return the errors of steps at every width of a sampler, on noise of their own."""
    times = tuple(sorted({time for step in steps for time in step if time is not None}, reverse=True))
    condition = None if sampler.condition is None else replace(sampler.condition, seed=SEED)
    teacher = replace(sampler, noise=Noise(SEED, sampler.noise.shape), condition=condition, prefixes=None)
    noise, states = _trajectory(teacher, times, range(images))
    place = {time: i for i, time in enumerate(times)}
    ends: list[list[int]] = [[] for _ in times]
    for begin, end in dict.fromkeys(steps):
        ends[place[begin]].append(len(times) if end is None else place[end])
    widths = sorted(sampler.denoisers)
    errors = np.full((len(times), len(times) + 1, len(widths)), np.nan)
    alpha, sigma = _levels(sampler.schedule, times)
    for i, (time, state) in enumerate(zip(times, states, strict=False)):
        for column, width in enumerate(widths):
            clean = _clean_image(teacher, width, state, time, (alpha[i], sigma[i]), range(images))
            for j in ends[i]:
                ratio = sigma[j] / sigma[i]
                reached = ratio * state + (alpha[j] - ratio * alpha[i]) * clean
                errors[i, j, column] = _distance(reached, states[j])
    start = np.array([_distance(noise, state) for state in states[:-1]])
    return StepErrors(times, start, errors)


def _trajectory(teacher: Sampler, times: Sequence[float], images: range) -> tuple[Tensor, list[Tensor]]:
    """Return the starting noise, and the teacher's states at the times and at the clean image."""
    fine = time_grid(teacher.schedule, "trailing", min(TEACHER_STEPS, teacher.schedule.steps))
    every = tuple(sorted({*map(float, fine), *times}, reverse=True))
    run = teacher.prepare(Plan(every, (max(teacher.denoisers),) * len(every), "ddim"))
    state = teacher.start(images)
    noise, kept, wanted = state.x, [], set(times)
    for position, time in enumerate(every):
        if time in wanted:
            kept.append(state.x)
        state = teacher.step(state, run, position, images)
    return noise, [*kept, state.x]


def _levels(schedule: NoiseSchedule, times: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return alpha and sigma at the times and at the clean image."""
    at = np.array(times)
    return [*schedule.alpha(at).tolist(), 1.0], [*schedule.sigma(at).tolist(), 0.0]


def _clean_image(
    teacher: Sampler, width: float, state: Tensor, time: float, level: tuple[float, float], images: range
) -> Tensor:
    network, condition = teacher.denoisers[width], teacher.condition
    predict = network if condition is None else condition.denoiser(network, images, teacher.device)
    told = torch.full((len(state),), time, device=teacher.device)
    alpha, sigma = level
    clean = (state - sigma * predict(state, told).to(teacher.dtype)) / alpha
    return clean.clamp_(-1, 1) if teacher.clip else clean


def _distance(first: Tensor, second: Tensor) -> float:
    return float((first - second).double().flatten(1).norm(dim=1).mean())
