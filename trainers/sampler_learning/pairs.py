"""Make the pairs that a sampler is learnt from: fixed noise, and the image that a many-step teacher makes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import NoiseSchedule, time_grid
from stepfront.trainers.diffusion.solvers import find_solver
from stepfront.trainers.learning_settings import LearningSettings

TEACHER_BATCH = 64
"""Images per network call of the teacher."""


@dataclass(frozen=True)
class Pairs:
    """Starting noise and the teacher's images, both [P, ...]; labels [P] where the network has classes."""

    noise: Tensor
    target: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.noise)

    def part(self, rows: Tensor | slice) -> Pairs:
        """Return some of the pairs."""
        return Pairs(self.noise[rows], self.target[rows], None if self.labels is None else self.labels[rows])


@dataclass(frozen=True)
class PairSets:
    """Pairs to learn from, pairs that choose when to stop, and pairs that nothing is chosen on."""

    train: Pairs
    stopping: Pairs
    held_out: Pairs


def learning_seed(seed: int) -> int:
    """Return the noise seed of learning: a name space of its own, far from the small seeds of scores."""
    digest = hashlib.sha256(f"stepfront sampler learning {seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1 | 1 << 62


def check_teacher(settings: LearningSettings, steps: int, schedule: NoiseSchedule) -> None:
    """Raise InputError for a teacher of fewer steps than the student's, and for one that adds noise."""
    if settings.teacher_steps < steps:
        raise InputError(
            f"a teacher of {settings.teacher_steps} steps can't teach a sampler of {steps}; "
            f"give a learning.teacher_steps of {steps} or more"
        )
    times = torch.from_numpy(time_grid(schedule, "trailing", settings.teacher_steps).copy())
    if bool(find_solver(settings.teacher_solver)(schedule, times).noise.any()):
        raise InputError(
            f"the teacher's solver {settings.teacher_solver} adds noise, which no student sees; give a "
            "learning.teacher_solver that is deterministic, such as dpmpp_2m"
        )


def teacher_pairs(
    sampler: Sampler, settings: LearningSettings, on_batch: Callable[[int], None] = lambda images: None
) -> PairSets:
    """Sample the teacher's images of all pairs; `on_batch` is called with the images of each batch.

    The noise, and the labels under a condition, are those of `learning_seed`: no score uses them.
    """
    seed = learning_seed(settings.seed)
    condition = None if sampler.condition is None else replace(sampler.condition, seed=seed)
    noise = Noise(seed, sampler.noise.shape)
    teacher = replace(sampler, noise=noise, condition=condition, prefixes=None)
    counts = [settings.pairs, settings.stopping_pairs, settings.held_out_pairs]
    images = range(sum(counts))
    targets = []
    for batch in teacher.sample(teacher_plan(sampler, settings), len(images), TEACHER_BATCH):
        targets.append(batch)
        on_batch(len(batch))
    complete = Pairs(
        noise.on(sampler.device, sampler.dtype, images),
        torch.cat(targets).clone(),  # a tensor of inference mode can't take part in a gradient
        None if condition is None else torch.from_numpy(condition.labels(images)).to(sampler.device),
    )
    first, second, _ = counts
    return PairSets(
        complete.part(slice(0, first)),
        complete.part(slice(first, first + second)),
        complete.part(slice(first + second, None)),
    )


def teacher_plan(sampler: Sampler, settings: LearningSettings) -> Plan:
    """Return the teacher: full width on the trailing grid."""
    times = time_grid(sampler.schedule, "trailing", settings.teacher_steps)
    widest = max(sampler.denoisers)
    return Plan(tuple(map(float, times)), (widest,) * settings.teacher_steps, settings.teacher_solver)
