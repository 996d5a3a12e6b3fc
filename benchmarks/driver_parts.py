"""Time what the driver of a search does with its processor, part by part, while workers sleep.

python -m benchmarks.driver_parts [--run runs/digits] [--workers 3] [--seconds 0.1] [--each 60] [--genes 1000]
    [--window 500] [--optuna-storage]

It prints milliseconds of the main thread per plan, each part without the parts within it, from the moment when every
worker had a result on.  With a window, it prints the same for each so many plans of the search: what grows with them.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from optuna.storages import RDBStorage
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.tune.execution.tune_controller import TuneController

from benchmarks.speed_search import Clock, utilisation
from stepfront.search.algorithm.nsga2 import BlockNSGAII
from stepfront.search.driver.write_tables import TableWriter
from stepfront.search.execution.tune_searcher import FirstFree, Job, LedgerSearcher, Watch
from stepfront.search.study import optuna_storage
from stepfront.search.study.ledger import Ledger
from stepfront.search.study.trial_store import TrialStore

PARTS: tuple[tuple[type, str, str], ...] = (
    (BlockNSGAII, "propose", "proposals"),
    (TrialStore, "add", "study: a new trial"),
    (TrialStore, "record", "study: a result"),
    (Ledger, "sync", "study: sync to the disk"),
    (Ledger, "ask", "ledger: rest of ask"),
    (Ledger, "tell", "ledger: rest of tell"),
    (Job, "of", "message to the worker"),
    (TableWriter, "write", "tables"),
    (LedgerSearcher, "suggest", "searcher: rest of suggest"),
    (LedgerSearcher, "on_trial_complete", "searcher: rest of a result"),
    (FirstFree, "choose_trial_to_run", "scheduler"),
    (Watch, "on_step_end", "watch of the trials in flight"),
    (RayActorManager, "next", "Tune: events of its actors"),
    (TuneController, "step", "Tune: rest of its loop"),
)


class Timers:
    """Seconds of the calling thread's processor by part, each without the parts that it calls."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._within: list[float] = []

    def around(self, method: Callable[..., Any], part: str) -> Callable[..., Any]:
        """Return the method, timed as a part."""

        def timed(*given: Any, **named: Any) -> Any:
            begin = time.thread_time()
            self._within.append(0.0)
            try:
                return method(*given, **named)
            finally:
                seconds = time.thread_time() - begin
                self.spent[part] += seconds - self._within.pop()
                self.calls[part] += 1
                if self._within:
                    self._within[-1] += seconds

        return timed


@dataclass(frozen=True)
class Window:
    """What the driver spent in ms per plan, part by part, until a number of plans and since the window before."""

    plans: int
    parts: dict[str, float]
    process: float


class Windows:
    """Cuts what a search's timers count into windows of `size` plans; 0: into none."""

    def __init__(self, timers: Timers, size: int) -> None:
        self.found: list[Window] = []
        self._timers, self._size = timers, size
        self._before: Counter[str] = Counter()

    def update(self, clock: Clock) -> None:
        """End a window where its last result has come."""
        count = len(clock.busy)
        if not self._size or count % self._size:
            return
        spent = self._timers.spent
        parts = {part: 1000 * (spent[part] - self._before[part]) / self._size for part in spent}
        first = max(0, count - 1 - self._size)  # the first window has one interval less
        process = 1000 * (clock.busy[-1] - clock.busy[first]) / max(1, count - 1 - first)
        self.found.append(Window(count, parts, process))
        self._before = Counter(spent)


@contextmanager
def timed_parts(workers: int, window: int = 0) -> Iterator[tuple[Timers, Windows]]:
    """Time the parts of searches in the block, from their result number `workers` on, or by windows of so many."""
    timers, update = Timers(), Clock.update
    windows = Windows(timers, window)

    def counted(clock: Clock, report: Any) -> None:
        update(clock, report)
        windows.update(clock)
        if len(clock.wall) == workers and not window:
            timers.spent.clear()
            timers.calls.clear()

    with ExitStack() as stack:
        stack.enter_context(patch.object(Clock, "update", counted))
        for owner, name, part in PARTS:
            stack.enter_context(patch.object(owner, name, timers.around(getattr(owner, name), part)))
        yield timers, windows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.driver_parts", description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/digits"), help="run with a supernet of digits")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.1, help="of an evaluation")
    parser.add_argument("--each", type=int, default=60, help="plans per worker")
    parser.add_argument("--genes", type=int, choices=(10, 1000), default=10, help="of the space: stages, or steps")
    parser.add_argument("--window", type=int, default=0, help="plans per row of what grows with their number")
    parser.add_argument("--optuna-storage", action="store_true", help="write the study by Optuna's own storage")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with ExitStack() as stack:
        timers, windows = stack.enter_context(timed_parts(given.workers, given.window))
        if given.optuna_storage:
            stack.enter_context(patch.object(optuna_storage, "OneWriterStorage", RDBStorage))
        found = utilisation(given.run, given.workers, given.seconds, given.each, given.genes)
    plans = given.workers * (given.each - (not given.window))
    print(f"{found.began} workers began and were busy {found.share:.3f} of their time")
    print(f"{found.driver_ms:.1f} ms of the driver's processor per plan, {found.plans_per_second:.1f} plans per second")
    for part, seconds in timers.spent.most_common():
        print(f"{part:32}{1000 * seconds / plans:8.2f} ms per plan{timers.calls[part]:8} calls")
    if windows.found:
        print(f"\n{'plans up to':32}" + "".join(f"{window.plans:8}" for window in windows.found))
        for part in ("process", *timers.spent):
            row = [window.process if part == "process" else window.parts.get(part, 0.0) for window in windows.found]
            print(f"{part:32}" + "".join(f"{value:8.2f}" for value in row))


if __name__ == "__main__":
    main()
