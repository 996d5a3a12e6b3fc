"""Run a sampler so that gradients reach its times and coefficients.

`Sampler` runs without gradients and in place.  This loop computes the same images from the same coefficients, and may
compute the network's activations twice to keep only one call of them in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from stepfront.trainers.diffusion.conditioning import calls_per_step, guided
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import NoiseSchedule
from stepfront.trainers.diffusion.solvers import Coefficients
from stepfront.trainers.diffusion.types import Denoiser, Network


@dataclass(frozen=True)
class Student:
    """The plan whose sampler is learnt: the width of each step, the denoisers, and how they predict."""

    denoisers: Mapping[float, Network]
    widths: tuple[float, ...]
    schedule: NoiseSchedule
    device: torch.device
    dtype: torch.dtype = torch.float32
    clip: bool = False
    classes: int | None = None
    guidance: float = 1.0

    @property
    def steps(self) -> int:
        return len(self.widths)

    @cached_property
    def calls_per_step(self) -> int:
        """Return the number of network calls per step."""
        return 1 if self.classes is None else calls_per_step(self.guidance)

    def predictor(self, width: float, labels: Tensor | None) -> Denoiser:
        """Return the denoiser of one step, with the labels of a batch filled in."""
        network = self.denoisers[width]
        if labels is None or self.classes is None:
            return network
        return guided(network, labels, self.classes, self.guidance)


def student_of(sampler: Sampler, widths: tuple[float, ...]) -> Student:
    """Return the student that runs `widths` on the networks of a sampler."""
    condition = sampler.condition
    return Student(
        sampler.denoisers,
        widths,
        sampler.schedule,
        sampler.device,
        sampler.dtype,
        sampler.clip,
        None if condition is None else len(condition.counts),
        1.0 if condition is None else condition.guidance,
    )


def run(
    student: Student,
    coefficients: Coefficients,
    told: Tensor,
    noise: Tensor,
    labels: Tensor | None = None,
    recompute: bool = False,
) -> Tensor:
    """Return the images [B, ...] that start from `noise` [B, ...]; the network is told the times `told` [N].

    With `recompute`, the activations of a network call are dropped and computed again for its gradient.
    """
    c = coefficients
    states, clean, alpha, sigma, times = (
        table.to(student.device, student.dtype) for table in (c.states, c.clean, c.alpha, c.sigma, told)
    )
    xs, x0s = [noise], []
    for i, width in enumerate(student.widths):
        predict = student.predictor(width, labels)
        t = times[i].expand(len(noise))
        eps = checkpoint(predict, xs[i], t, use_reentrant=False) if recompute else predict(xs[i], t)
        x0 = (xs[i] - sigma[i] * eps.to(student.dtype)) / alpha[i]
        x0s.append(x0.clamp(-1, 1) if student.clip else x0)
        xs.append(_combined(states[i, : i + 1], xs) + _combined(clean[i, : i + 1], x0s))
    return xs[-1]


def _combined(weights: Tensor, tensors: list[Tensor]) -> Tensor:
    return torch.tensordot(weights, torch.stack(tensors), dims=1)


def activation_bytes(student: Student, noise: Tensor, labels: Tensor | None) -> int:
    """Return the bytes that the gradient of one call of the widest step keeps, for a batch like `noise`."""
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    x, t = noise.detach().requires_grad_(), torch.zeros(len(noise), device=student.device, dtype=student.dtype)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        student.predictor(max(student.widths), labels)(x, t)
    return sum(kept.values())
