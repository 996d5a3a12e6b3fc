"""Compare samplers on trained supernets: python -m benchmarks.samplers [--supernet NAME] [--train] [--processes 8].

Measures what is missing in runs/NAME, task by task in processes, and writes docs/bench-solvers.md,
docs/bench-sampler.md and its figure from all supernets that have scores.  One `--supernet NAME` alone has pages of its
own, docs/bench-solvers-NAME.md and docs/bench-sampler-NAME.md.  `--minutes` ends it in time; another call continues.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

from benchmarks.samplers.supernets import DATA, SUPERNETS
from benchmarks.samplers.tasks import Task, measurements, preparations, run_task
from stepfront.errors import InputError

WITHOUT_LEARNING = ("fashion-mnist-16",)
"""Supernets on which hand samplers alone are compared."""


def main() -> None:
    """Measure what is missing, and write the pages."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.samplers", description=__doc__)
    parser.add_argument(
        "--supernet",
        choices=SUPERNETS,
        action="append",
        help="may be repeated; default: those that are trained; one alone has pages of its own",
    )
    parser.add_argument("--train", action="store_true", help="train the supernets that are missing")
    parser.add_argument("--stop-training", action="store_true", help="take interrupted trainings as they are")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs/NAME/supernet")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of fashion-mnist, cifar10-jpg, cifar-resnets")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e6, help="time limit")
    parser.add_argument("--device", default="auto", help="device of the measurements, such as cpu or cuda")
    parser.add_argument("--only", action="append", help="kind of task, such as hand or learnt_solver")
    parser.add_argument("--steps", type=int, nargs="+", help="numbers of steps; default: all")
    parser.add_argument("--tiny", action="store_true", help="measure little, to see that it runs")
    parser.add_argument("--page", action="store_true", help="write the pages from what is measured already")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of the pages; '' writes none")
    given = parser.parse_args()
    if not given.page:
        Measurement(given).run()
    if given.docs != Path():
        from benchmarks.samplers.pages import write_pages

        only = given.supernet[0] if given.supernet and len(set(given.supernet)) == 1 else None
        try:
            write_pages(given.runs, given.docs, only)
        except InputError as error:
            parser.exit(2, f"{error}\n")


class Measurement:
    """Tasks that wait, and the processes that run them."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given, self._begin = given, time.monotonic()
        trained = [name for name in SUPERNETS if (given.runs / name / "supernet" / "supernet.json").exists()]
        self._names = given.supernet or (list(SUPERNETS) if given.train else trained)
        self._waiting: deque[Task] = deque()
        self._running: dict[Future[str], Task] = {}
        self._unprepared: dict[str, int] = {}

    def run(self) -> None:
        """Run all tasks, or as many as there is time for."""
        for name in self._names:
            first = self._with_options(preparations(name))
            self._unprepared[name] = len(first)
            self._waiting.extend(first)
        self._waiting = deque(sorted(self._waiting, key=lambda task: task.kind != "supernet"))
        pool = ProcessPoolExecutor(self._given.processes, multiprocessing.get_context("spawn"))
        try:
            while (self._waiting or self._running) and self._left > 0:
                while self._waiting and len(self._running) < self._given.processes:
                    task = self._waiting.popleft()
                    self._running[pool.submit(run_task, task, self._given.runs, self._given.data)] = task
                done, _ = wait(self._running, max(0.0, self._left), FIRST_COMPLETED)
                for future in done:
                    self._end(future)
        finally:
            for process in list(pool._processes.values()):
                process.kill()
            pool.shutdown(wait=False, cancel_futures=True)

    @property
    def _left(self) -> float:
        return self._begin + 60 * self._given.minutes - time.monotonic()

    def _end(self, future: Future[str]) -> None:
        task = self._running.pop(future)
        seconds = time.monotonic() - self._begin
        try:
            print(f"{seconds:6.1f} s  {future.result()}", flush=True)
        except Exception as error:  # the other tasks shall run
            print(f"{seconds:6.1f} s  {task} failed: {type(error).__name__}: {error}", flush=True)
            if task.prepares:
                self._unprepared[task.name] = 0
        if task.prepares:
            self._unprepared[task.name] -= 1
            if self._unprepared[task.name] == 0:
                self._add_measurements(task.name)

    def _add_measurements(self, name: str) -> None:
        """Put the tasks of a supernet among those that wait, so that all supernets advance alike."""
        tasks = self._with_options(measurements(name, name not in WITHOUT_LEARNING))
        if self._given.only:
            tasks = [task for task in tasks if task.kind.replace(" ", "_") in self._given.only]
        if self._given.steps:
            tasks = [task for task in tasks if task.steps in self._given.steps]
        self._waiting.extend(tasks)
        self._waiting = deque(sorted(self._waiting, key=lambda task: task.rank))

    def _with_options(self, tasks: Iterable[Task]) -> list[Task]:
        given = self._given
        images = 64 if given.tiny else 1024
        options = {"device": given.device, "images": images, "tiny": given.tiny, "stop": given.stop_training}
        return [replace(task, **options) for task in tasks]


if __name__ == "__main__":
    main()
