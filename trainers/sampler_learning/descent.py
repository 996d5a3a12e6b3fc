"""Hold the state of learning from one start: what is learnt, its optimizer, its average, and the best so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.learning_settings import LearningSettings
from stepfront.trainers.sampler_learning.parameters import Frame, Parameters, initial_parameters, learnt_names, project

CLIPPED_TOGETHER = (("theta", "first"), ("offsets",), ("states", "clean"))
"""Parameters whose gradients are clipped to a common norm; the scales of these groups differ."""


@dataclass(frozen=True)
class Check:
    """One check while learning: the mean distance of the gradient steps before it, and of the stopping pairs."""

    iteration: int
    train: float
    stopping: float


@dataclass
class Descent:
    """Learning from one start.  state_file.py saves and restores all of it.

    `noise_moved` [P, ...] is how far the noise of each training pair has moved within its ball; None without a ball.
    """

    name: str
    frame: Frame
    parameters: Parameters
    averaged: Parameters
    best: Parameters
    optimizer: torch.optim.Adam
    iteration: int = 0
    history: list[Check] = field(default_factory=list)
    noise_moved: Tensor | None = None

    @property
    def learnt(self) -> dict[str, Tensor]:
        """The tensors that are learnt, by name."""
        return {name: tensor for name, tensor in self.parameters.tensors().items() if tensor.requires_grad}

    @property
    def least(self) -> float:
        """The smallest distance of the stopping pairs so far."""
        return min((check.stopping for check in self.history), default=math.inf)

    def stalled(self, patience: int) -> bool:
        """Return whether the last `patience` checks brought nothing smaller."""
        if not self.history:
            return False
        best = min(range(len(self.history)), key=lambda i: self.history[i].stopping)
        return len(self.history) - 1 - best >= patience

    def take_step(self, loss: Tensor, settings: LearningSettings) -> None:
        """Step down the gradient of a loss, with a cosine decay of the rates over the iterations."""
        self.optimizer.zero_grad()
        loss.backward()
        learnt = self.learnt
        for group in CLIPPED_TOGETHER:
            torch.nn.utils.clip_grad_norm_([learnt[name] for name in group if name in learnt], settings.clip_gradient)
        decay = 0.5 + 0.5 * math.cos(math.pi * min(1.0, self.iteration / settings.iterations))
        for rates in self.optimizer.param_groups:
            rates["lr"] = rates["first_rate"] * decay
        self.optimizer.step()
        self.iteration += 1
        project(self.frame, self.parameters)
        averaged = self.averaged.tensors()
        with torch.no_grad():
            for name, tensor in learnt.items():
                averaged[name].lerp_(tensor, 1 - settings.average)

    def keep_check(self, train: float, stopping: float) -> None:
        """Record a check, and keep the parameters if they are the best so far."""
        if stopping < self.least:
            self.best = self.averaged.copy()
        self.history.append(Check(self.iteration, train, stopping))


def begin(name: str, frame: Frame, sampler: LearntSampler, settings: LearningSettings) -> Descent:
    """Return the state before the first step, at a `sampler` with or without corrections."""
    parameters, learnt = initial_parameters(frame, sampler), learnt_names(frame)
    tensors = parameters.tensors()
    rates = {
        "theta": settings.rate_times,
        "first": settings.rate_times,
        "offsets": settings.rate_network_times * frame.noisiest / 1000,
        "states": settings.rate_coefficients,
        "clean": settings.rate_coefficients,
    }
    groups = [{"params": [tensors[n].requires_grad_()], "lr": rates[n], "first_rate": rates[n]} for n in learnt]
    return Descent(name, frame, parameters, parameters.copy(), parameters.copy(), torch.optim.Adam(groups))


class NoiseBall:
    """The noise of one gradient step's pairs, moved as far as earlier steps have moved it (LD3's soft teacher).

    A student need not hit the teacher's image from exactly the same noise: it is enough that some noise nearby leads
    there.
    """

    def __init__(self, settings: LearningSettings, noise: Tensor, rows: Tensor, state: Descent, pairs: int) -> None:
        """Take the `noise` of the `rows` of all `pairs`."""
        self._settings, self._given, self._rows, self._state = settings, noise, rows, state
        self.noise = noise
        if settings.ball:
            if state.noise_moved is None:
                state.noise_moved = noise.new_zeros(pairs, *noise.shape[1:])
            state.noise_moved = state.noise_moved.to(noise)  # a restored one lies on the CPU
            self.noise = (noise + state.noise_moved[rows]).detach().requires_grad_()

    def move(self) -> None:
        """Take one gradient step with the noise, and return it to its ball."""
        gradient, state = self.noise.grad, self._state
        if gradient is None or state.noise_moved is None:
            return
        with torch.no_grad():
            # The distance is a mean over the batch; each pair moves by its own gradient.
            moved = self.noise - self._settings.rate_noise * len(self._rows) * gradient - self._given
            norm = moved.flatten(1).norm(dim=1).clamp_min(1e-12)
            radius = self._settings.ball * self._given.flatten(1).norm(dim=1)
            factor = (radius / norm).clamp(max=1.0).reshape(-1, *[1] * (moved.ndim - 1))
            state.noise_moved[self._rows] = moved * factor
