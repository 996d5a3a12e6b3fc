"""Workers that sleep in place of evaluating.

A process that unpickles a class of a module imports all of that.  This one needs no torch, so that 64 workers can begin
on two cores.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluation import Evaluation

if TYPE_CHECKING:
    from stepfront.trainers.evaluator import EvaluatorParts
    from stepfront.trainers.inference.prefix_cache import Shared


@dataclass(frozen=True)
class Gate:
    """A folder in which each worker leaves its name, and waits until `workers` have, or until the time `latest`.

    Two cores that start many workers would handle the first few's results for so long that the last would come after
    the budget was used.
    """

    folder: str
    workers: int
    latest: float

    def enter(self) -> None:
        """Wait for the last worker."""
        (Path(self.folder) / str(os.getpid())).touch()
        while len(os.listdir(self.folder)) < self.workers and time.time() < self.latest:
            time.sleep(0.1)


class Sleeping:
    """Loader of an evaluator that sleeps for `seconds` and makes up a score; `paired` is when it began."""

    def __init__(
        self, parts: EvaluatorParts, shared: Shared | None = None, seconds: float = 0.0, gate: Gate | None = None
    ) -> None:
        self._seconds, self._gate, self._entered = seconds, gate, False
        self._costs = {width: 2e-9 * cost.macs for width, cost in parts.costs.items()}

    def __call__(self) -> Callable[[Plan, int, int], Evaluation]:
        return self.evaluate

    def evaluate(self, plan: Plan, images: int, noise_seed: int) -> Evaluation:
        """Return a made-up score."""
        if self._gate is not None and not self._entered:
            self._gate.enter()
            self._entered = True
        began = time.time()
        time.sleep(self._seconds)
        shares = np.array(plan.widths) * np.linspace(0.5, 1.5, len(plan.widths))
        gflops = sum(self._costs[width] for width in plan.widths)
        fid = 10 - 9 * float(shares.mean()) * len(shares) / (2 + len(shares))
        return Evaluation(fid, gflops, gflops, "made up", images, noise_seed, self._seconds, paired=began)
