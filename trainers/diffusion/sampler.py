"""Execute plans: sample images with one denoiser per width (and depth) and reproducible noise.

Noise is a function of (seed, image, step) alone.  No batch size, worker or order of evaluation changes an image.  Two
plans with the same seed differ by their widths and times alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.diffusion.conditioning import Condition, calls_per_step
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.plan_run import PlanRun
from stepfront.trainers.diffusion.schedule import NoiseSchedule
from stepfront.trainers.diffusion.solvers import find_solver
from stepfront.trainers.diffusion.types import Network
from stepfront.trainers.networks.deep_features import FeatureCalls, check_splits
from stepfront.trainers.variant import Size


@dataclass(frozen=True)
class State:
    """The state of a trajectory before its next step: x, and what this and later steps read of earlier ones.

    `states` holds earlier x, and `clean` the clean images predicted of them, by the position of their step.  `deep` are
    the features of the calls of the last full step, where the next step reuses them.
    """

    x: Tensor
    states: Mapping[int, Tensor] = field(default_factory=dict)
    clean: Mapping[int, Tensor] = field(default_factory=dict)
    deep: tuple[Tensor, ...] = ()

    @property
    def nbytes(self) -> int:
        """Return the bytes of all tensors."""
        held = (self.x, *self.states.values(), *self.clean.values(), *self.deep)
        return sum(int(tensor.nbytes) for tensor in held)


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

    `denoisers` maps each width to its network, and `shallower` other sizes to theirs.  `condition` holds the labels
    where the network has classes.  `clip` clamps every predicted clean image to [-1, 1].  `prefixes` holds states to
    start from, of plans on these networks.
    """

    denoisers: Mapping[float, Network]
    schedule: NoiseSchedule
    noise: Noise
    device: torch.device
    dtype: torch.dtype = torch.float32
    clip: bool = False
    prefixes: PrefixStates | None = None
    condition: Condition | None = None
    shallower: Mapping[Size, Network] = field(default_factory=dict)

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
            keys = {p: f"{noise} {run.prefix_key(p)}" for p in positions}
            found = self.prefixes.longest(list(keys.values()))
            if found is not None:
                first, state = positions[found[0]], found[1]
        on_start(first, len(indices))
        for position in range(first, len(run)):
            if self.prefixes is not None and position in keys:
                self.prefixes.keep(keys[position], state)
            state = self.step(state, run, position, indices)
        if self.prefixes is not None:
            self.prefixes.publish()
        return state

    def prepare(self, plan: Plan) -> PlanRun:
        """Return the plan with its coefficients.  Raises InputError for an unknown width, variant or solver."""
        sizes = [*map(Size, self.denoisers), *self.shallower]
        plan.check_widths(dict.fromkeys(size.width for size in sizes))
        for variant in map(plan.variants.__getitem__, plan.taken):
            if variant.size not in sizes:
                possible = ", ".join(map(str, sizes))
                raise InputError(f"the plan {plan.runs} runs {variant}, which is no network here; possible: {possible}")
        find_solver(plan.solver)
        if plan.switches_guidance and (self.condition is None or calls_per_step(self.condition.guidance) == 1):
            why = "the network has no classes" if self.condition is None else "no step is guided at this scale"
            off = any(not variant.guided for variant in plan.variants)
            does, mark = ("turns guidance off", "u") if off else ("has another scale of guidance", "g")
            raise InputError(f"the plan {plan.runs} {does} at a step ({mark}), and {why}; leave out the {mark}")
        for variant in plan.variants:
            if variant.reuse:
                check_splits(self.denoisers[variant.width], f"the plan {plan.runs}")
        return PlanRun(plan, self.schedule)

    def start(self, images: range) -> State:
        """Return the state before the first step."""
        return State(self.noise.on(self.device, self.dtype, images))

    @torch.inference_mode()
    def step(self, state: State, run: PlanRun, position: int, images: range) -> State:
        """Apply one prediction and the solver's update (solvers.py has the equation)."""
        step, taken = run.steps[position], run.taken[position]
        eps, deep = self._predict(state, run, position, images)
        x0 = (state.x - step.sigma * eps.to(self.dtype)).div_(step.alpha)
        if self.clip:
            x0.clamp_(-1, 1)
        states, clean = {**state.states, position: state.x}, {**state.clean, position: x0}
        terms = [(c, states[j]) for j, c in step.states] + [(c, clean[j]) for j, c in step.clean]
        (c, read), *others = terms or [(0.0, state.x)]
        x = c * read
        for c, read in others:
            x += c * read
        if step.noise:
            x += step.noise * self.noise.on(self.device, self.dtype, images, taken)
        later = run.reads[position + 1]
        return State(x, {j: states[j] for j in later.states}, {j: clean[j] for j in later.clean}, deep)

    def _predict(self, state: State, run: PlanRun, position: int, images: range) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the predicted noise, and the deep features that the next step reuses; none where it does not."""
        variant, keeps = run.variants[position], run.reads_features(position + 1)
        # An unguided step has only the call with the label, which is the last one of a guided step.
        deep = state.deep if variant.guided else state.deep[-1:]
        own = self.denoisers[variant.width] if variant.depth is None else self.shallower[variant.size]
        network = FeatureCalls(own, deep if variant.reuse else (), keeps)
        predict: Network = network
        if self.condition is not None:
            scale = variant.scale_at(self.condition.guidance)
            predict = self.condition.denoiser(network, images, self.device, scale)
        eps = predict(state.x, run.time(position, len(state.x), self.device))
        return eps, (state.deep if variant.reuse else network.kept) if keeps else ()
