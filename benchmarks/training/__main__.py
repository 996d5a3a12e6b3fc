"""Compare trainings at equal network FLOPs: python -m benchmarks.training [--supernet NAME] [--processes 2].

It measures what is missing in runs/bench-training, training by training in processes, and writes
docs/bench-training.md.  Every training has the network FLOPs of the first one, and all are scored on equal noise.
Second stages start from the first one's supernet, and have further FLOPs, the same for all.  `--minutes` ends it in
time; another call continues.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch

from benchmarks.kept_images import PIXELS_FILE, keep_images, kept_images
from benchmarks.samplers.judges import prepare_judge
from benchmarks.samplers.supernets import DATA, SUPERNETS, settings_of
from benchmarks.training.measure import JUDGES, SCORES_FILE, Setting, measured
from benchmarks.training.page import COMPARISON_FILE, FITS_FILE, Comparison, kept, page
from benchmarks.training.trainings import Fit, Training, fits, trainings
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
        self._done: dict[tuple[int, str], Path] = {}

    def run(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Run all, or as many as there is time for; return the scores of trainings, and those of fits."""
        pool = ProcessPoolExecutor(self._processes, multiprocessing.get_context("spawn"))
        try:
            while self._left > 0:
                while len(self._running) < self._processes and (following := self._next()) is not None:
                    self._running[pool.submit(measured, *following)] = following
                if not self._running:
                    break
                done, _ = wait(self._running, max(0.0, self._left), FIRST_COMPLETED)
                for future in done:
                    self._end(future)
        finally:
            for process in list(pool._processes.values()):
                process.kill()
            pool.shutdown(wait=False, cancel_futures=True)
        tables = [pd.read_parquet(path) for path in self._done.values()]
        found = [[table for table in tables if column in table] for column in ("training", "plan")]
        scores, fitted = (pd.concat(some) if some else pd.DataFrame() for some in found)
        return scores, fitted

    @property
    def _left(self) -> float:
        return self._begin + 60 * self._minutes - time.monotonic()

    def _next(self) -> tuple[Setting, Training | Fit] | None:
        for number, (setting, part) in enumerate(self._waiting):
            if all((setting.seed, needed) in self._done for needed in part.needs):
                return self._waiting.pop(number)
        return None

    def _end(self, future: Future[Path]) -> None:
        setting, part = self._running.pop(future)
        text = f"{time.monotonic() - self._begin:6.1f} s  seed {setting.seed}, {part.folder}"
        try:
            self._done[setting.seed, part.folder] = future.result()
            print(text, flush=True)
        except Exception as error:  # the other trainings shall run
            print(f"{text} failed: {type(error).__name__}: {error}", flush=True)


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
    parser.add_argument("--seeds", type=int, default=3, help="training seeds")
    parser.add_argument("--images", type=int, default=1024, help="images per score")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of fashion-mnist and cifar10-jpg")
    parser.add_argument("--processes", type=int, default=1, help="processes that train side by side")
    parser.add_argument("--minutes", type=float, default=1e6, help="time limit; what is missing then stays out")
    parser.add_argument("--runs", type=Path, default=Path("runs/bench-training"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--page", action="store_true", help="write the page from what is measured already")
    given = parser.parse_args()
    if not given.page:
        measure(given)
    write_text(given.docs / "bench-training.md", page(kept(given.runs)))


def measure(given: argparse.Namespace) -> None:
    """Train and score what is missing, and keep the tables."""
    base = settings_of(given.supernet, given.data)
    steps = given.steps or base.training.steps
    base = _with_training(base, {"steps": steps, "precision": "float32"})  # as on a CPU, whatever the device
    device = device_name(pick_device(base.training.device))
    comparison = Comparison(
        given.supernet, steps, given.extra or steps // 2, given.seeds, given.images, device, given.processes
    )
    folder = given.runs / f"{given.supernet}-{steps}"
    images = prepared(base, folder, given.data)
    settings = [
        Setting(_with_training(base, {"seed": seed}), folder, seed, given.images, comparison.extra)
        for seed in range(given.seeds)
    ]
    shape = images.channels, images.resolution
    tables = Measurement(settings, shape, given.processes, given.minutes).run()
    for name, table in zip((SCORES_FILE, FITS_FILE), tables, strict=True):
        table.to_parquet(folder / name)
    write_text(folder / COMPARISON_FILE, json.dumps(asdict(comparison)))


def _with_training(settings: TrainerSettings, change: dict[str, object]) -> TrainerSettings:
    return settings.model_copy(update={"training": settings.training.model_copy(update=change)})


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    main()
