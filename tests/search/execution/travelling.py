"""What the tests here send to worker processes: a process that unpickles a class of a module imports all of that.

The modules of tests import what a driver does, which takes four seconds of a processor; this one takes none of them.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

from stepfront.search.execution.shared_prefixes import NodePrefixes
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluation import Evaluation

STATE = np.arange(1000, dtype=np.float32)


class Sharing:
    """A process of its own that offers and looks up."""

    def __init__(self, shared: NodePrefixes) -> None:
        self.shared = shared

    def offer(self, key: str) -> int:
        features = (STATE + 3, STATE + 4)
        self.shared.offer([(key, (STATE, {}, {}, ())), (key + "+", (STATE + 1, {}, {3: STATE + 2}, features))])
        return os.getpid()

    def longest(self, keys: list[str]) -> Any:
        found = self.shared.longest(keys)
        return found and (found[0], deepcopy(found[1]))


class FailingLoad:
    """A worker whose evaluations raise, return nonsense, stop for ever or kill the process, by the plan."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __call__(self):  # type: ignore[no-untyped-def]
        def evaluate(plan: Plan, images: int, noise_seed: int) -> Evaluation:
            fid = {0.25: float("nan"), 0.5: 3.0, 1.0: 1.0}[plan.widths[0]]
            if plan.widths == (0.5,) * 6:
                raise RuntimeError("the network is on fire")
            if plan.widths == (1.0,) * 6 and not self.mark.exists():
                self.mark.write_text("died once")
                os.kill(os.getpid(), signal.SIGKILL)
            mixed = plan.widths[0] != 0.25 and len(set(plan.widths)) > 1
            if mixed and not (stopped := self.mark.with_suffix(".stopped")).exists():
                stopped.write_text(str(plan.widths))
                os.kill(os.getpid(), signal.SIGSTOP)  # hangs so hard that nothing in the process can notice
            return Evaluation(fid, float(sum(plan.widths)), 1.0, "made", images, noise_seed)

        return evaluate


class Troubled:
    """An evaluator that notes each beginning in a file; one plan raises, and the 20th beginning kills the process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> Callable[[Plan, int, int], Evaluation]:
        def evaluate(plan: Plan, images: int, noise_seed: int) -> Evaluation:
            with open(self.folder / "begun", "a") as file:
                file.write(f"{plan.widths}\n")
            if plan.widths == (0.5,) * 6:
                raise RuntimeError("on fire")
            if len((self.folder / "begun").read_text().splitlines()) >= 20 and not (self.folder / "died").exists():
                (self.folder / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.02)
            return Evaluation(10 - sum(plan.widths), sum(plan.widths), 1.0, "made up", images, noise_seed, 0.02)

        return evaluate
