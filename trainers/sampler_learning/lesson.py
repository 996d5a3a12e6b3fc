"""Teach a student: gradient steps on the training pairs, and checks on the stopping pairs."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.learning_settings import LearningSettings
from stepfront.trainers.sampler_learning.descent import Descent, NoiseBall
from stepfront.trainers.sampler_learning.distances import Distance
from stepfront.trainers.sampler_learning.pairs import PairSets
from stepfront.trainers.sampler_learning.parameters import Parameters, coefficients_of
from stepfront.trainers.sampler_learning.starts import mean_distance
from stepfront.trainers.sampler_learning.trajectory import Student, activation_bytes, run


@dataclass(frozen=True)
class LearningProgress:
    """How far learning is: the phase, the share that is done, the seconds used and left, and the last distances.

    `train` is the mean distance of the last gradient steps and `stopping` that of the stopping pairs; NaN before.
    """

    phase: str
    done: float
    seconds: float
    remaining: float
    train: float = float("nan")
    stopping: float = float("nan")


class DivergedError(InputError):
    """Learning from one start whose distance stopped being finite."""


OnProgress = Callable[[LearningProgress], None]


@dataclass
class Meter:
    """The network calls by width, against those planned; a backward pass counts as one more call.

    The weights take no gradient, so a backward pass computes about what a forward pass does.
    """

    planned: float
    on_progress: OnProgress = lambda progress: None
    calls: Counter[float] = field(default_factory=Counter)
    earlier_seconds: float = 0.0
    begin: float = field(default_factory=time.perf_counter)

    def add(self, widths: Sequence[float], images: int, passes: int = 1) -> None:
        """Count calls of `images` images at each of the widths, `passes` times."""
        for width in widths:
            self.calls[width] += images * passes

    def continue_from(self, calls: Mapping[float, int], seconds: float) -> None:
        """Count on from what an interrupted learning had counted."""
        if sum(calls.values()) > self.calls.total():
            self.calls = Counter(calls)
            self.earlier_seconds = seconds - (time.perf_counter() - self.begin)

    @property
    def seconds(self) -> float:
        """The seconds so far, those before a resume included."""
        return self.earlier_seconds + time.perf_counter() - self.begin

    def report(self, phase: str, train: float = float("nan"), stopping: float = float("nan")) -> None:
        """Pass on how far learning is."""
        done = min(1.0, self.calls.total() / max(1.0, self.planned))
        remaining = self.seconds * (1 - done) / done if done else float("nan")
        self.on_progress(LearningProgress(phase, done, self.seconds, remaining, train, stopping))


@dataclass(frozen=True)
class Lesson:
    """What learning from any start shares: student, pairs, distance, settings, and the counter of network calls."""

    student: Student
    pairs: PairSets
    distance: Distance
    settings: LearningSettings
    meter: Meter

    def descend(self, descent: Descent, until: int, save: Callable[[Descent], None] = lambda descent: None) -> None:
        """Continue learning to iteration `until`, or until it stalls; `save` is called after each check.

        Raises DivergedError when the distance stops being finite.
        """
        if not descent.history:
            descent.keep_check(math.nan, self.stopping_distance(descent.averaged, descent))
        losses: list[float] = []
        while descent.iteration < until and not descent.stalled(self.settings.patience):
            losses.append(self.step(descent))
            if descent.iteration % self.settings.check_every == 0 or descent.iteration == until:
                train, stopping = sum(losses) / len(losses), self.stopping_distance(descent.averaged, descent)
                losses.clear()
                descent.keep_check(train, stopping)
                self.meter.report(f"learning from {descent.name}", train, stopping)
                save(descent)

    def stopping_distance(self, parameters: Parameters, descent: Descent) -> float:
        """Return the mean distance of the stopping pairs."""
        pairs = self.pairs.stopping
        self.meter.add(self.student.widths, len(pairs) * self.student.calls_per_step)
        with torch.no_grad():
            form = coefficients_of(descent.frame, parameters)
        return float(mean_distance(self.student, form, pairs, self.distance).mean())

    def step(self, descent: Descent) -> float:
        """Take one gradient step and return its distance."""
        rows = batch_rows(len(self.pairs.train), self.settings, descent.iteration)
        part = self.pairs.train.part(rows)
        ball = NoiseBall(self.settings, part.noise, rows, descent, len(self.pairs.train))
        form = coefficients_of(descent.frame, descent.parameters)
        images = run(self.student, *form, ball.noise, part.labels, self.recompute)
        loss = self.distance(images, part.target).mean()
        value = loss.item()
        if not math.isfinite(value):
            raise DivergedError(
                f"learning diverged at iteration {descent.iteration}: the distance is {value}; give smaller learning "
                "rates (learning.rate_times, learning.rate_coefficients)"
            )
        descent.take_step(loss, self.settings)
        ball.move()
        self.meter.add(self.student.widths, len(rows) * self.student.calls_per_step, 3 if self.recompute else 2)
        return value

    @cached_property
    def recompute(self) -> bool:
        """Whether the activations of all steps would not fit the memory that the settings allow."""
        part = self.pairs.train.part(slice(0, min(self.settings.batch, len(self.pairs.train))))
        needed = activation_bytes(self.student, part.noise, part.labels) * self.student.steps
        return needed > self.settings.memory_mb * 2**20


def batch_rows(count: int, settings: LearningSettings, iteration: int) -> Tensor:
    """Return the rows of a gradient step's pairs: each pass over the pairs has an order of its own."""
    batch = min(settings.batch, count)
    passes, place = divmod(iteration * batch, count - count % batch)
    order = torch.randperm(count, generator=torch.Generator().manual_seed((settings.seed << 20) + passes))
    return order[place : place + batch]
