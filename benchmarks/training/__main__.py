"""Compare trainings at equal network FLOPs: python -m benchmarks.training [--supernet NAME] [--processes 2].

It measures what is missing in runs/bench-training, training by training in processes, and writes
docs/bench-training.md.  Every training has the network FLOPs of the first one, and all are scored on equal noise.
Second stages start from the first one's supernet, and have further FLOPs, the same for all.  `--minutes` ends it in
time; another call continues.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from pathlib import Path

import torch

from benchmarks.arguments import positive
from benchmarks.kept_images import PIXELS_FILE, keep_images, kept_images
from benchmarks.samplers.judges import prepare_judge
from benchmarks.samplers.supernets import DATA, SUPERNETS, settings_of
from benchmarks.training.measure import JUDGES, Setting, measured
from benchmarks.training.page import COMPARISON_FILE, Comparison, page, read_comparison, read_tables
from benchmarks.training.trainings import Fit, Training, fits, trainings, with_training
from stepfront.errors import InputError
from stepfront.files import write_text
from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.data import ImageData, load_data
from stepfront.trainers.devices import device_name, pick_device


class Measurement:
    """Trainings and fits that wait, and the processes that run them; the first ones come first in every seed."""

    def __init__(self, settings: Sequence[Setting], shape: tuple[int, int], processes: int, minutes: float) -> None:
        self._begin, self._minutes, self._processes = time.monotonic(), minutes, processes
        in_order = [list(_parts(setting, shape)) for setting in settings]
        self._waiting = [pair for place in zip(*in_order, strict=True) for pair in place]
        self._running: dict[Future[Path], tuple[Setting, Training | Fit]] = {}
        self._done: set[tuple[int, str]] = set()
        self._lost: set[tuple[int, str]] = set()
        self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._processes, multiprocessing.get_context("spawn"))

    def run(self) -> None:
        """Run all, or as many as there is time for."""
        try:
            while self._left > 0:
                while len(self._running) < self._processes and (following := self._next()) is not None:
                    self._running[self._pool.submit(measured, *following)] = following
                if not self._running:
                    break
                done, _ = wait(self._running, max(0.0, self._left), FIRST_COMPLETED)
                for future in done:
                    self._end(future)
        finally:
            self._stop()

    def _stop(self) -> None:
        for process in list(self._pool._processes.values()):
            process.kill()
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def _left(self) -> float:
        return self._begin + 60 * self._minutes - time.monotonic()

    def _next(self) -> tuple[Setting, Training | Fit] | None:
        for number, (setting, part) in enumerate(self._waiting):
            if all((setting.seed, needed) in self._done for needed in part.needs):
                return self._waiting.pop(number)
        return None

    def _end(self, future: Future[Path]) -> None:
        if future not in self._running:  # lost together with another
            return
        setting, part = pair = self._running.pop(future)
        try:
            future.result()
        except BrokenProcessPool:
            self._begin_anew([pair, *self._running.values()])
        except Exception as error:  # the other trainings shall run
            self._say(setting, part, f" failed: {type(error).__name__}: {error}")
        else:
            self._done.add((setting.seed, part.folder))
            self._say(setting, part)

    def _begin_anew(self, lost: Sequence[tuple[Setting, Training | Fit]]) -> None:
        """Make new processes: one has died, and all parts that ran are lost; each of them is tried once more."""
        for setting, part in lost:
            key = setting.seed, part.folder
            again = key not in self._lost
            self._say(setting, part, f" lost its process{', and is tried again' if again else ''}")
            if again:
                self._lost.add(key)
                self._waiting.insert(0, (setting, part))
        self._running.clear()
        self._stop()
        self._pool = self._new_pool()

    def _say(self, setting: Setting, part: Training | Fit, end: str = "") -> None:
        seconds = time.monotonic() - self._begin
        print(f"{seconds:6.1f} s  seed {setting.seed}, {part.folder}{end}", flush=True)


def _parts(setting: Setting, shape: tuple[int, int]) -> Iterable[tuple[Setting, Training | Fit]]:
    """Yield what is measured of a seed; fits come before the rules that are compared beside the first ones."""
    found = list(trainings(setting.base, shape, setting.extra, setting.place))
    first = next(place for place, each in enumerate(found) if each.adapt is not None and each.adapt.merge)
    yield from ((setting, part) for part in (*found[:first], *fits(setting.base), *found[first:]))


def prepared(base: TrainerSettings, folder: Path, data: Path) -> ImageData:
    """Return the images; the folder of a comparison holds them and their judges from here on."""
    if not (folder / PIXELS_FILE).exists():
        keep_images(load_data(base.data), folder)
    images, judges = kept_images(folder), folder / "judges"
    judges.mkdir(parents=True, exist_ok=True)
    for judge in JUDGES:
        if not (judges / f"reference-{judge}.npz").exists():
            prepare_judge(judge, images, judges, data, pick_device(base.training.device))
    return images


def main() -> None:
    """Train, score and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--supernet", choices=SUPERNETS, default="digits")
    parser.add_argument("--steps", type=int, help="sandwich steps of the supernet; default: those of its settings")
    parser.add_argument("--extra", type=int, help="sandwich steps of second stages; default: half of the first's")
    parser.add_argument("--seeds", type=positive, default=3, help="training seeds")
    parser.add_argument("--images", type=int, default=1024, help="images per score")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of fashion-mnist and cifar10-jpg")
    parser.add_argument("--processes", type=int, default=1, help="processes that train side by side")
    parser.add_argument("--minutes", type=float, help="time limit; what is missing then stays out")
    parser.add_argument("--runs", type=Path, default=Path("runs/bench-training"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--page", action="store_true", help="write the page from what is measured already")
    given = parser.parse_args()
    if not given.page:
        try:
            measure(given)
        except InputError as error:
            parser.exit(2, f"{error}\n")
    found = read_tables(given.runs)
    if not found:
        parser.exit(2, f"no training is scored in {given.runs} yet; the page stays as it is\n")
    write_text(given.docs / "bench-training.md", page(found))


def measure(given: argparse.Namespace) -> None:
    """Train and score what is missing."""
    base = settings_of(given.supernet, given.data)
    steps = given.steps or base.training.steps
    # As on a CPU, whatever the device.
    base = with_training(base, {"steps": steps, "precision": "float32"})
    folder = given.runs / f"{given.supernet}-{steps}"
    comparison = begun(given, steps, device_name(pick_device(base.training.device)), folder)
    images = prepared(base, folder, given.data)
    settings = [
        Setting(with_training(base, {"seed": seed}), folder, seed, given.images, comparison.extra)
        for seed in range(given.seeds)
    ]
    shape, minutes = (images.channels, images.resolution), math.inf if given.minutes is None else given.minutes
    Measurement(settings, shape, given.processes, minutes).run()


def begun(given: argparse.Namespace, steps: int, device: str, folder: Path) -> Comparison:
    """Return the comparison of a call, which is kept in its folder; one that was begun there is continued.

    Raises InputError where the scores that are there were made otherwise.
    """
    made = time.strftime("%Y-%m-%d")
    own = (given.extra or steps // 2, given.seeds, given.images, device, given.processes, given.minutes, made)
    comparison = Comparison(given.supernet, steps, *own)
    if (earlier := read_comparison(folder)) is not None:
        comparison.check_continues(earlier)
        most = max(earlier.processes, given.processes)
        comparison = replace(comparison, processes=most, seeds=max(earlier.seeds, given.seeds))
    write_text(folder / COMPARISON_FILE, json.dumps(asdict(comparison)))
    return comparison


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    main()
