"""Train and score one training, or one fit of weights to a plan, in a process that may have others beside it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd
import torch

from benchmarks.kept_images import kept_images
from benchmarks.samplers.case import FIRST_SEED, open_case
from benchmarks.training.plan_fits import SUPERNET, UNDIVIDED, measure_fit
from benchmarks.training.trainings import Fit, Training
from stepfront.files import write_atomically
from stepfront.trainers.adaptation.second_stage import SecondStage
from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.data import ImageData
from stepfront.trainers.devices import pick_device
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.schedule import time_grid
from stepfront.trainers.networks.card import CARD_FILE
from stepfront.trainers.training.trainer import train_supernet

NUMBERS_OF_STEPS = (10, 20)
SOLVER, GRID = "unipc_2", "quadratic"
JUDGES = ("degradations", "classifier")

NOISE_SEEDS = 3

SCORES_FILE = "scores.parquet"


@dataclass(frozen=True)
class Setting:
    """What all measurements of one training seed share: base settings, folders, images per score and extra steps."""

    base: TrainerSettings
    folder: Path
    seed: int
    images: int
    extra: int

    @property
    def place(self) -> Path:
        """The folder of this seed's trainings."""
        return self.folder / f"seed-{self.seed}"

    @property
    def device(self) -> torch.device:
        """The device of trainings and scores."""
        return pick_device(self.base.training.device)


@cache
def _images(path: Path) -> ImageData:
    return kept_images(path)


def measured(setting: Setting, part: Training | Fit) -> Path:
    """Train and score what is missing of a training or a fit; return the file of its scores."""
    torch.set_num_threads(1)
    directory = setting.place / part.folder
    path = directory / SCORES_FILE
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        data = _images(setting.folder)
        table = _fit_scores(setting, part, data) if isinstance(part, Fit) else _scores(setting, part, data)
        write_atomically(path, table.assign(seed=setting.seed).to_parquet)  # a process may be ended at any time
    return path


def _fit_scores(setting: Setting, fit: Fit, data: ImageData) -> pd.DataFrame:
    folders = {name: setting.place / needed for name, needed in zip((SUPERNET, UNDIVIDED), fit.needs, strict=True)}
    return measure_fit(
        fit.plan, setting.base, data, folders, setting.extra, (SOLVER, GRID), setting.images, setting.device
    )


def _scores(setting: Setting, training: Training, data: ImageData) -> pd.DataFrame:
    """Return a row per width, number of steps, judge and noise seed."""
    directory, begin = setting.place / training.folder, time.monotonic()
    if not (directory / CARD_FILE).exists():
        _train(setting, training, data)
    minutes = (time.monotonic() - begin) / 60
    if not training.shown:
        return pd.DataFrame({"training": [training.name], "minutes": [minutes]}).iloc[:0]
    for file in (setting.folder / "judges").iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    case = open_case(directory, setting.device, setting.images)
    losses = json.loads((directory / CARD_FILE).read_text(encoding="utf-8"))["made_with"]["held_out_losses"]
    rows = []
    for width in case.supernet.widths if training.width is None else (training.own_width,):
        shown = width if training.width is None else training.width
        for steps in NUMBERS_OF_STEPS:
            plan = Plan(tuple(time_grid(case.schedule, GRID, steps)), (width,) * steps, SOLVER, grid=GRID)
            for seed in range(NOISE_SEEDS):
                for judge, score in case.scores(plan, FIRST_SEED + seed).items():
                    row = {"training": training.name, "width": shown, "steps": steps, "judge": judge, "noise": seed}
                    rows.append(row | {"fid": score, "loss": losses[str(width)], "minutes": minutes})
    return pd.DataFrame(rows)


def _train(setting: Setting, training: Training, data: ImageData) -> None:
    """Run a training, or a second stage, in its folder; the groups of both forms are trained once."""
    directory = setting.place / training.folder
    if training.adapt is None:
        train_supernet(training.settings, data, directory)
        return
    first, groups = setting.place / training.needs[0], setting.place / training.groups_folder
    stage = SecondStage.checked(training.settings, training.adapt, data, first, groups, setting.device).begin()
    for group in stage.trainings():
        if not group.done:
            train_supernet(group.settings, data, group.directory)
    stage.finish(directory)
