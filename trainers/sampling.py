"""Executes plans: a plan, a denoiser a width, and reproducible noise in; images out.

Noise is a function of (seed, image, step) alone.  No batch size, worker or order of evaluation changes an image, and
two plans with the same seed differ by their widths and times alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from trainers.errors import InputError
from trainers.noise import NoiseSchedule
from trainers.plan import Plan
from trainers.solvers import SOLVERS, Coefficients

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""x [B, ...], t [B] -> predicted noise [B, ...]; a plain subnet, or an analytic stand-in."""


@dataclass(frozen=True)
class Noise:
    """Standard normal float32 noise of `shape` for any image and step, by a counter-based generator (Philox)."""

    seed: int
    shape: tuple[int, ...]

    def initial(self, images: range) -> np.ndarray:
        """The starting noise of each image, [B, *shape]."""
        return self._draw(images, 0)

    def fresh(self, images: range, step: int) -> np.ndarray:
        """The noise that an ancestral solver adds after step `step`, [B, *shape]."""
        return self._draw(images, step + 1)

    def _draw(self, images: range, block: int) -> np.ndarray:
        # The highest word of the counter separates steps; a draw would need 2^192 numbers to run into the next.
        drawn = np.empty((len(images), *self.shape), dtype=np.float32)
        for row, image in enumerate(images):
            generator = np.random.Generator(np.random.Philox(key=[self.seed, image], counter=[0, 0, 0, block]))
            drawn[row] = generator.standard_normal(self.shape, dtype=np.float32)
        return drawn


@dataclass(frozen=True)
class State:
    """Where a trajectory stands before its next step: x, and the clean image predicted by the step before."""

    x: Tensor
    x0: Tensor | None = None


@dataclass(frozen=True)
class Sampler:
    """Denoisers by width, the noise schedule and the noise, on one device.

    `denoisers` maps each width to a `Denoiser`; `clip` clamps every predicted clean image to [-1, 1].
    """

    denoisers: Mapping[float, Denoiser]
    schedule: NoiseSchedule
    noise: Noise
    device: torch.device
    dtype: torch.dtype = torch.float32
    clip: bool = False

    def sample(self, plan: Plan, images: int, batch: int) -> Iterator[Tensor]:
        """The images 0 ... images - 1 of the plan in batches [B, *shape], on the sampler's device."""
        run = self.prepare(plan)
        for first in range(0, images, batch):
            indices = range(first, min(first + batch, images))
            state = self.start(indices)
            for position in range(len(run)):
                state = self.step(state, run, position, indices)
            yield state.x

    def prepare(self, plan: Plan) -> PlanRun:
        """The plan's coefficients, made once.  Raises InputError for a width or solver that is not there."""
        plan.check_widths(self.denoisers)
        if plan.solver not in SOLVERS:
            raise InputError(f"unknown solver {plan.solver!r}; possible: {', '.join(SOLVERS)}")
        return PlanRun(plan, self.schedule)

    def start(self, images: range) -> State:
        """The state before the first step."""
        return State(torch.from_numpy(self.noise.initial(images)).to(self.device, self.dtype))

    @torch.inference_mode()
    def step(self, state: State, run: PlanRun, position: int, images: range) -> State:
        """One network call and the solver's update (see solvers.py for the equation)."""
        c, taken = run.coefficients, run.plan.taken[position]
        alpha, sigma, a, b, before, fresh = (float(v[position]) for v in (c.alpha, c.sigma, c.a, c.b, c.c, c.d))
        t = torch.full((state.x.shape[0],), run.plan.times[taken], device=self.device, dtype=torch.float32)
        eps = self.denoisers[run.plan.widths[taken]](state.x, t).to(self.dtype)
        x0 = (state.x - sigma * eps) / alpha
        if self.clip:
            x0 = x0.clamp(-1, 1)
        x = a * state.x + b * x0
        if before and state.x0 is not None:
            x += before * state.x0
        if fresh:
            x += fresh * torch.from_numpy(self.noise.fresh(images, taken)).to(self.device, self.dtype)
        return State(x, x0)


@dataclass(frozen=True)
class PlanRun:
    """A plan with the coefficients of the steps that it takes."""

    plan: Plan
    schedule: NoiseSchedule

    def __len__(self) -> int:
        return len(self.plan.taken)

    @cached_property
    def coefficients(self) -> Coefficients:
        times = np.array([self.plan.times[i] for i in self.plan.taken])
        return SOLVERS[self.plan.solver](self.schedule, times)

    def prefix_key(self, position: int) -> tuple[object, ...]:
        """All that the state before step `position` depends on, beside the noise: equal keys, equal states."""
        taken = self.plan.taken
        steps = tuple((taken[i], self.plan.times[taken[i]], self.plan.widths[taken[i]]) for i in range(position))
        following = self.plan.times[taken[position]] if position < len(taken) else None
        return (self.plan.solver, steps, following)
