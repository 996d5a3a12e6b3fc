"""Executes plans: a plan, a denoiser a width, and reproducible noise in; images out.

Noise is a function of (seed, image, step) alone.  No batch size, worker or order of evaluation changes an image, and
two plans with the same seed differ by their widths and times alone.
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
    """Where a trajectory stands before its next step: x, and the clean image predicted by the step before."""

    x: Tensor
    x0: Tensor | None = None


class Kept(Protocol):
    """States of earlier plans, by prefix; see prefixes.py."""

    def positions(self, run: PlanRun, state: State) -> range:
        """The steps before which a state is kept."""

    def longest(self, keys: Sequence[str]) -> tuple[int, State] | None:
        """Index and state of the last key that is kept."""

    def keep(self, key: str, state: State) -> None:
        """Keeps a state."""

    def publish(self) -> None:
        """The plan has run on a batch: what was kept of it may be shared."""


@dataclass(frozen=True)
class Sampler:
    """Denoisers by width, the noise schedule and the noise, on one device.

    `denoisers` maps each width to its network, which `condition` tells the labels where it has classes; `clip` clamps
    every predicted clean image to [-1, 1]; `prefixes` are states to start from, of plans on these same denoisers.
    """

    denoisers: Mapping[float, Network]
    schedule: NoiseSchedule
    noise: Noise
    device: torch.device
    dtype: torch.dtype = torch.float32
    clip: bool = False
    prefixes: Kept | None = None
    condition: Condition | None = None

    def sample(
        self, plan: Plan, images: int, batch: int, begun: Callable[[int, int], None] = lambda position, images: None
    ) -> Iterator[Tensor]:
        """The images 0 ... images - 1 of the plan in batches [B, *shape], on the sampler's device.

        `begun` is told, for each batch, how many steps a kept prefix has spared it, and how many images it has.
        """
        run = self.prepare(plan)
        for first in range(0, images, batch):
            indices = range(first, min(first + batch, images))
            yield self._run(run, indices, begun).x

    def _run(self, run: PlanRun, indices: range, begun: Callable[[int, int], None]) -> State:
        state, first, keys = self.start(indices), 0, {}
        if self.prefixes is not None:
            positions = self.prefixes.positions(run, state)
            noise = hashlib.sha256(f"{self.noise.seed} {self.condition} {indices}".encode()).hexdigest()
            # A plan that does not look back keeps no x0: its state is not that of one that does.
            keys = {p: f"{noise} {run.prefix_key(p)} {bool(run.steps[p].before)}" for p in positions}
            found = self.prefixes.longest(list(keys.values()))
            if found is not None:
                first, state = positions[found[0]], found[1]
        begun(first, len(indices))
        for position in range(first, len(run)):
            if self.prefixes is not None and position in keys:
                self.prefixes.keep(keys[position], state if run.steps[position].before else State(state.x))
            state = self.step(state, run, position, indices)
        if self.prefixes is not None:
            self.prefixes.publish()
        return state

    def prepare(self, plan: Plan) -> PlanRun:
        """The plan's coefficients, made once.  Raises InputError for a width or solver that is not there."""
        plan.check_widths(self.denoisers)
        find_solver(plan.solver)
        return PlanRun(plan, self.schedule)

    def start(self, images: range) -> State:
        """The state before the first step."""
        return State(self.noise.on(self.device, self.dtype, images))

    @torch.inference_mode()
    def step(self, state: State, run: PlanRun, position: int, images: range) -> State:
        """One prediction and the solver's update (see solvers.py for the equation)."""
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
        if c.fresh:
            x += c.fresh * self.noise.on(self.device, self.dtype, images, taken)
        return State(x, x0)


@dataclass(frozen=True)
class Step:
    """One step's coefficients as plain floats, in the order of solvers.py's `Coefficients`."""

    alpha: float
    sigma: float
    a: float
    b: float
    before: float
    fresh: float


@dataclass(frozen=True)
class PlanRun:
    """A plan with the coefficients of the steps that it takes."""

    plan: Plan
    schedule: NoiseSchedule

    def __len__(self) -> int:
        return len(self.taken)

    @cached_property
    def taken(self) -> tuple[int, ...]:
        """The positions in the plan of the steps that it takes."""
        return self.plan.taken

    @cached_property
    def coefficients(self) -> Coefficients:
        times = np.array([self.plan.times[i] for i in self.taken])
        return find_solver(self.plan.solver)(self.schedule, times)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The coefficients a step: nothing is left to convert while sampling."""
        c = self.coefficients
        return tuple(Step(*row) for row in np.stack([c.alpha, c.sigma, c.a, c.b, c.c, c.d], axis=1).tolist())

    @property
    def multistep(self) -> bool:
        """Whether some step reads the clean image that the step before predicted."""
        return any(step.before for step in self.steps)

    def time(self, position: int, batch: int, device: torch.device) -> Tensor:
        """The time of a step for a whole batch, [batch]; made once for all steps."""
        tables: dict[tuple[int, torch.device], Tensor] = self.__dict__.setdefault("_times", {})
        if (batch, device) not in tables:
            times = torch.tensor([self.plan.times[i] for i in self.taken], dtype=torch.float32)
            tables[batch, device] = times[:, None].expand(-1, batch).contiguous().to(device)
        return tables[batch, device][position]

    def prefix_key(self, position: int) -> str:
        """A digest of all that the state before step `position` depends on, beside the noise: equal keys, equal states,
        in every process."""
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
