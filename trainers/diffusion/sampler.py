"""Execute plans: sample images with one denoiser per width and reproducible noise.

Noise is a function of (seed, image, step) alone.  No batch size, worker or order of evaluation changes an image.  Two
plans with the same seed differ by their widths and times alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from stepfront.trainers.diffusion.conditioning import Condition
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.schedule import NoiseSchedule
from stepfront.trainers.diffusion.solvers import Coefficients, find_solver
from stepfront.trainers.diffusion.types import Network


@dataclass(frozen=True)
class State:
    """The state of a trajectory before its next step: x, and the clean image predicted by the step before."""

    x: Tensor
    x0: Tensor | None = None


class PrefixStates(Protocol):
    """A cache of the states of earlier plans, by prefix; inference/prefix_cache.py has one."""

    def positions(self, run: PlanRun, state: State) -> range:
        """Return the steps before which a state is cached."""

    def longest(self, keys: Sequence[str]) -> tuple[int, State] | None:
        """Return index and state of the last key that is cached."""

    def keep(self, key: str, state: State) -> None:
        """Cache a state."""

    def publish(self) -> None:
        """Share what was cached of a plan that has run on a batch."""


@dataclass(frozen=True)
class Sampler:
    """Denoisers by width, the noise schedule and the noise, on one device.

    `denoisers` maps each width to its network; `condition` holds the labels where the network has classes.  `clip`
    clamps every predicted clean image to [-1, 1].  `prefixes` holds states to start from, of plans on these denoisers.
    """

    denoisers: Mapping[float, Network]
    schedule: NoiseSchedule
    noise: Noise
    device: torch.device
    dtype: torch.dtype = torch.float32
    clip: bool = False
    prefixes: PrefixStates | None = None
    condition: Condition | None = None

    def sample(
        self, plan: Plan, images: int, batch: int, on_start: Callable[[int, int], None] = lambda position, images: None
    ) -> Iterator[Tensor]:
        """Yield the images 0 ... images - 1 of the plan in batches [B, *shape], on the sampler's device.

        `on_start` is called for each batch with the number of steps that a cached prefix saves, and of its images.
        """
        run = self.prepare(plan)
        for first in range(0, images, batch):
            indices = range(first, min(first + batch, images))
            yield self._run(run, indices, on_start).x

    def _run(self, run: PlanRun, indices: range, on_start: Callable[[int, int], None]) -> State:
        state, first, keys = self.start(indices), 0, {}
        if self.prefixes is not None:
            positions = self.prefixes.positions(run, state)
            noise = hashlib.sha256(f"{self.noise.seed} {self.condition} {indices}".encode()).hexdigest()
            # A plan that does not look back stores no x0, so its state is not that of a plan that does.
            keys = {p: f"{noise} {run.prefix_key(p)} {bool(run.steps[p].before)}" for p in positions}
            found = self.prefixes.longest(list(keys.values()))
            if found is not None:
                first, state = positions[found[0]], found[1]
        on_start(first, len(indices))
        for position in range(first, len(run)):
            if self.prefixes is not None and position in keys:
                self.prefixes.keep(keys[position], state if run.steps[position].before else State(state.x))
            state = self.step(state, run, position, indices)
        if self.prefixes is not None:
            self.prefixes.publish()
        return state

    def prepare(self, plan: Plan) -> PlanRun:
        """Return the plan with its coefficients.  Raises InputError for an unknown width or solver."""
        plan.check_widths(self.denoisers)
        find_solver(plan.solver)
        return PlanRun(plan, self.schedule)

    def start(self, images: range) -> State:
        """Return the state before the first step."""
        return State(self.noise.on(self.device, self.dtype, images))

    @torch.inference_mode()
    def step(self, state: State, run: PlanRun, position: int, images: range) -> State:
        """Apply one prediction and the solver's update (solvers.py has the equation)."""
        c, taken = run.steps[position], run.taken[position]
        network = self.denoisers[run.plan.widths[taken]]
        predict = network if self.condition is None else self.condition.denoiser(network, images, self.device)
        eps = predict(state.x, run.time(position, len(state.x), self.device))
        x0 = (state.x - c.sigma * eps.to(self.dtype)).div_(c.alpha)
        if self.clip:
            x0.clamp_(-1, 1)
        x = (c.a * state.x).add_(c.b * x0)
        if c.before and state.x0 is not None:
            x += c.before * state.x0
        if c.noise:
            x += c.noise * self.noise.on(self.device, self.dtype, images, taken)
        return State(x, x0)


@dataclass(frozen=True)
class Step:
    """The coefficients of one step as plain floats, in the order of `Coefficients`."""

    alpha: float
    sigma: float
    a: float
    b: float
    before: float
    noise: float


@dataclass(frozen=True)
class PlanRun:
    """A plan with the coefficients of the steps that it takes."""

    plan: Plan
    schedule: NoiseSchedule

    def __len__(self) -> int:
        return len(self.taken)

    @cached_property
    def taken(self) -> tuple[int, ...]:
        """Return the positions in the plan of the steps that it takes."""
        return self.plan.taken

    @cached_property
    def coefficients(self) -> Coefficients:
        """Return the solver's coefficients of the steps that the plan takes."""
        times = np.array([self.plan.times[i] for i in self.taken])
        return find_solver(self.plan.solver)(self.schedule, times)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Return the coefficients per step, converted once."""
        c = self.coefficients
        return tuple(Step(*row) for row in np.stack([c.alpha, c.sigma, c.a, c.b, c.c, c.d], axis=1).tolist())

    @property
    def multistep(self) -> bool:
        """Return whether some step reads the clean image that the step before predicted."""
        return any(step.before for step in self.steps)

    def time(self, position: int, batch: int, device: torch.device) -> Tensor:
        """Return the time of a step for a complete batch, [batch]; the times of all steps are made once."""
        tables: dict[tuple[int, torch.device], Tensor] = self.__dict__.setdefault("_times", {})
        if (batch, device) not in tables:
            times = torch.tensor([self.plan.times[i] for i in self.taken], dtype=torch.float32)
            tables[batch, device] = times[:, None].expand(-1, batch).contiguous().to(device)
        return tables[batch, device][position]

    def prefix_key(self, position: int) -> str:
        """Return a digest of all that the state before step `position` depends on, except the noise.

        Equal keys mean equal states, in every process.
        """
        return self._prefix_keys[position]

    @cached_property
    def _prefix_keys(self) -> tuple[str, ...]:
        digest, keys = hashlib.sha256(self.plan.solver.encode()), []
        for i in (*self.taken, None):
            # The solver's update of the step before reads the time of this one, if there is one.
            following = digest.copy()
            following.update(repr(None if i is None else self.plan.times[i]).encode())
            keys.append(following.hexdigest())
            if i is not None:
                digest.update(repr((i, self.plan.times[i], self.plan.widths[i])).encode())
        return tuple(keys)
