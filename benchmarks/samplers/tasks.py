"""List what is measured on a supernet, as tasks that processes take one by one, and run one of them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd
import torch

from benchmarks.samplers.case import Case, open_case
from benchmarks.samplers.judges import judge_names, prepare_judge
from benchmarks.samplers.rows import ALL_SEEDS, GRID_SEEDS, LEARNT, Row, all_pairs, closed_form_rows, learnt_rows
from benchmarks.samplers.supernets import DATA, ensure_supernet, settings_of
from stepfront.files import write_atomically
from stepfront.trainers.data import load_data
from stepfront.trainers.devices import pick_device
from stepfront.trainers.learning_settings import LearningSettings
from stepfront.trainers.sampler_learning.starts import SAMPLERS
from stepfront.trainers.variant import parse_runs

STEPS = (5, 4, 6, 8, 3, 10, 15, 20, 50)
"""Numbers of steps at full width, the most interesting ones first."""

FITTED = ("2x0.50 3x1.00", "4x0.50 4x1.00", "6x0.25 4x1.00")
"""Mixed plans that samplers are fitted to."""

LONGEST_LEARNT = 20
"""Steps above which nothing is learnt: hand samplers are as good as the teacher of 50 steps there."""


@dataclass(frozen=True)
class Task:
    """One measurement: `kind` is supernet, judges, hand, grid, or what is learnt; `plan` are run lengths."""

    name: str
    kind: str
    plan: str = ""
    device: str = "auto"
    images: int = 1024
    tiny: bool = False
    stop: bool = False

    @property
    def file(self) -> str:
        """The name of the file of its rows."""
        return f"{self.kind}-{self.plan}.parquet".replace(" ", "-")

    @property
    def steps(self) -> int:
        """The number of steps of its plan."""
        return len(parse_runs(self.plan))

    @property
    def rank(self) -> int:
        """Its place among the tasks of a supernet; the least comes first, and -1 is that of a preparation."""
        if self.prepares:
            return -1
        order = [(task.kind, task.plan) for task in measurements(self.name)]
        return order.index((self.kind, self.plan))

    @property
    def prepares(self) -> bool:
        """Whether other tasks of the supernet need it."""
        return self.kind in ("supernet", "judges")


def preparations(name: str) -> list[Task]:
    """Return the tasks that come first: training, and the judges."""
    return [Task(name, "supernet"), *(Task(name, "judges", judge) for judge in ("degradations", "classifier", ""))]


def measurements(name: str, learnt: bool = True) -> Iterator[Task]:
    """Yield the tasks of a trained supernet, the most wanted first."""
    full = [f"{steps}x1.00" for steps in STEPS]
    for plan in (*full, *(FITTED if learnt else ())):
        yield Task(name, "hand", plan)
    if learnt:
        for kind in ("learnt solver", "learnt times", "learnt network times"):
            for steps, plan in zip(STEPS, full, strict=True):
                if steps <= LONGEST_LEARNT:
                    yield Task(name, kind, plan)
            yield from (Task(name, kind, plan) for plan in FITTED if kind != "learnt network times")
    for plan in full:
        yield Task(name, "grid", plan)


def run_task(task: Task, runs: Path, data: Path = DATA) -> str:
    """Run a task, and return what it did in a line; the rows it has already measured are kept."""
    torch.set_num_threads(3 if task.prepares and torch.cuda.is_available() else 1)
    directory = runs / task.name / "supernet"
    if task.kind == "supernet":
        ensure_supernet(task.name, directory, data, task.tiny, task.stop)
    elif task.kind == "judges":
        _prepare_judges(task, directory, data)
    else:
        _measure(task, directory, runs / task.name / "bench-samplers")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # other processes share the GPU
    return f"{task.name}: {task.kind} {task.plan}".rstrip()


def _prepare_judges(task: Task, directory: Path, data: Path) -> None:
    """Prepare the judge that `plan` names, or all that need no training."""
    images = load_data(settings_of(task.name, data, task.tiny).data)
    trained = ("degradations", "classifier")
    for judge in judge_names(task.name, images):
        if judge == task.plan or (not task.plan and judge not in trained):
            prepare_judge(judge, images, directory, data, pick_device(task.device), task.tiny)


def _measure(task: Task, directory: Path, folder: Path) -> None:
    path = folder / task.file
    if path.exists():
        return
    rows: list[Row] = []
    for row in _rows(_case(directory, task.device, task.images), task):
        rows.append(row)
        _write(pd.DataFrame(rows), path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def _rows(case: Case, task: Task) -> Iterator[Row]:
    pairs = all_pairs()[:8] if task.tiny else all_pairs()
    if task.kind == "hand":
        return closed_form_rows(case, task.plan, SAMPLERS, 1 if task.tiny else ALL_SEEDS)
    if task.kind == "grid":
        return closed_form_rows(case, task.plan, pairs[len(SAMPLERS) :], 1 if task.tiny else GRID_SEEDS)
    assert task.kind in LEARNT
    # Memory is plenty on a GPU; the numbers are the same.
    settings = LearningSettings(memory_mb=16_384 if case.device.type == "cuda" else 1024)
    if task.tiny:
        settings = LearningSettings(
            pairs=8, stopping_pairs=4, held_out_pairs=4, iterations=4, batch=4, teacher_steps=20
        )
    return learnt_rows(case, task.plan, task.kind, settings)


@lru_cache(maxsize=1)
def _case(directory: Path, device: str, images: int) -> Case:
    return open_case(directory, pick_device(device), images)


def _write(table: pd.DataFrame, path: Path) -> None:
    content = io.BytesIO()
    table.to_parquet(content, index=False)
    write_atomically(path, lambda beside: beside.write_bytes(content.getvalue()))


def collected(runs: Path, name: str) -> pd.DataFrame:
    """Return all rows of a supernet, those of unfinished tasks too."""
    folder = runs / name / "bench-samplers"
    files = sorted([*folder.glob("*.parquet"), *folder.glob("*.part")])
    return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True) if files else pd.DataFrame()
