"""Blur the images of a supernet's plans and score them on both judges of `auto`: a blurred plan must not win.

A claim needs both judges (docs/search.md), so a blurred plan wins only where both put it within the margin.
"""

from __future__ import annotations

from collections.abc import Iterator
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from torch import Tensor

import stepfront
from benchmarks.problem import Problem
from stepfront.search.config import ConfirmSettings, RunSettings, TrackingSettings
from stepfront.search.problem.load import load_problem
from stepfront.search.scoring.second_judge import load_second_judge
from stepfront.trainers.config import NetworkSettings, TrainingSettings
from stepfront.trainers.metrics.examination import STRENGTHS
from stepfront.trainers.metrics.features import Judge
from stepfront.trainers.metrics.fid import Moments
from stepfront.trainers.metrics.harm import harm_images

IMAGES = 1024
NETWORK = NetworkSettings(base=16, multipliers=(1, 2), widths=(0.25, 0.5, 0.75, 1.0))
MARGIN = ConfirmSettings().margin
STEPS = (100, 1500)
"""Training steps of the supernets: one that is hardly trained, and the quickstart's."""


def blurred_plans() -> Iterator[dict[str, object]]:
    """Yield one row per supernet, width and judge: the score as it is, and at each strength of blur."""
    for steps in STEPS:
        with TemporaryDirectory() as folder:
            training = TrainingSettings(steps=steps, batch=128, lr=2e-3, ema=0.99)
            tracking = TrackingSettings(uri=None)
            settings = RunSettings(directory=folder, network=NETWORK, training=training, tracking=tracking)
            stepfront.train(settings, progress=False)
            search = load_problem(settings)
            judges = (Judge(search.features, search.reference), load_second_judge(search))
            for width in (search.card.network.widths[0], search.card.network.widths[-1]):
                sampled = Problem(search, IMAGES).evaluator.sample(search.uniform_plan(width), IMAGES, 0)
                images = torch.cat(list(sampled)).clamp(-1, 1)
                for judge in judges:
                    yield {"training steps": steps, "width": width} | scores(judge, images)


def scores(judge: Judge, images: Tensor) -> dict[str, object]:
    """Return the judge's name, the score of images [N, C, H, W] and those of the blurred images, by strength."""
    features = judge.features.unpack(torch.device("cpu"))

    def score(given: Tensor) -> float:
        return judge.reference.distance(Moments.of(features(part) for part in given.split(500)))

    blurred = {f"blur {strength:g}": score(harm_images(images, "blur", strength, 0)) for strength in STRENGTHS}
    return {"judge": judge.features.name, "not blurred": score(images)} | blurred


def wins(table: pd.DataFrame, steps: int) -> tuple[int, int]:
    """Return in how many of all cases of width and strength blurred images would pass as full width's equal.

    That is, their score is worse than that of full width, not blurred, by less than the margin on both judges.
    """
    rows = table[table["training steps"] == steps]
    full = rows[rows["width"] == rows["width"].max()].set_index("judge")["not blurred"]
    limits = rows["judge"].map(full) * (1 + MARGIN)
    blurs = [name for name in rows.columns if str(name).startswith("blur ")]
    passes = rows[blurs].lt(limits, axis=0).groupby(rows["width"]).all().to_numpy()
    return int(passes.sum()), passes.size


def section(table: pd.DataFrame) -> list[str]:
    """Return the lines of the section in docs/judges.md."""
    shown = table.map(lambda value: f"{value:.3g}" if isinstance(value, float) else str(value))
    few, enough = (wins(table, steps) for steps in STEPS)
    return [
        "## A blurred plan",
        "",
        f"{IMAGES:,} images of plans of one width, blurred after sampling, on both judges of `auto`. A blurred plan",
        f"wins where it is worse than full width by less than {MARGIN:.0%} on both judges, as in a claim.",
        f"On digits after {STEPS[1]:,} training steps, {enough[0]} of {enough[1]} blurred plans win. After {STEPS[0]}",
        f"steps, which is far too few, {few[0]} of {few[1]} do: such samples are mostly noise, and a blur takes it",
        "away. So look at the images of full width before you search.",
        "",
        "| " + " | ".join(map(str, shown.columns)) + " |",
        "|" + "---|" * len(shown.columns),
        *("| " + " | ".join(row) + " |" for row in shown.to_numpy()),
        "",
    ]
