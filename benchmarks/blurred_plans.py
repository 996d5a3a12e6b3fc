"""Blur the images of a supernet's plans and score them on both judges of `auto`: a blurred plan must not win.

A claim needs both judges (docs/search.md), so a blurred plan passes only where both put it within the margin.  It wins
only where claims are made at all: not on a supernet whose own images at full width pass after a blur.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from torch import Tensor

import stepfront
from benchmarks.markdown import markdown_lines
from benchmarks.problem import Problem
from stepfront.search.config import ConfirmSettings, RunSettings, TrackingSettings
from stepfront.search.problem.load import load_problem
from stepfront.search.scoring.second_judge import load_second_judge
from stepfront.trainers.metrics.examination import CLEAR, STRENGTHS
from stepfront.trainers.metrics.features import Judge
from stepfront.trainers.metrics.fid import Moments
from stepfront.trainers.metrics.harm import harm_images
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.training_settings import TrainingSettings

IMAGES = 1024
NETWORK = NetworkSettings(base=16, multipliers=(1, 2), widths=(0.25, 0.5, 0.75, 1.0))
MARGIN = ConfirmSettings().margin
STEPS = (100, 300, 600, 1500)
"""Training steps of the supernets: from one that is hardly trained to the quickstart's."""


def blurred_plans(training_steps: Sequence[int] = STEPS) -> Iterator[dict[str, object]]:
    """Yield one row per supernet, width and judge: the score as it is, and at each strength of blur."""
    for steps in training_steps:
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
    rows, limits = _rows_and_limits(table, steps)
    blurs = [name for name in rows.columns if str(name).startswith("blur ")]
    passes = rows[blurs].lt(limits, axis=0).groupby(rows["width"]).all().to_numpy()
    return int(passes.sum()), passes.size


def claims_are_made(table: pd.DataFrame, steps: int) -> bool:
    """Return whether a claim can be made on a supernet: full width's own images must not pass after a clear blur."""
    rows, limits = _rows_and_limits(table, steps)
    full = rows["width"] == rows["width"].max()
    return not rows.loc[full, f"blur {CLEAR:g}"].lt(limits[full]).all()


def _rows_and_limits(table: pd.DataFrame, steps: int) -> tuple[pd.DataFrame, pd.Series]:
    """Return the rows of a supernet, and the score below which images pass on each row's judge."""
    rows = table[table["training steps"] == steps]
    full = rows[rows["width"] == rows["width"].max()].set_index("judge")["not blurred"]
    return rows, rows["judge"].map(full) * (1 + MARGIN)


def section(table: pd.DataFrame) -> list[str]:
    """Return the lines of the section in docs/judges.md, below its heading."""
    counted = []
    for steps in sorted(set(table["training steps"])):
        passing, of = wins(table, steps)
        made = claims_are_made(table, steps)
        counted.append([f"{steps:,}", f"{passing} of {of}", "made" if made else "refused", str(passing if made else 0)])
    shown = table.sort_values("training steps", kind="stable")
    cells = [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in row] for row in shown.to_numpy(dtype=object)]
    return [
        f"{IMAGES:,} images of plans of one width on digits, blurred after sampling, on both judges of `auto`.",
        f"A blurred plan passes where it is worse than full width by less than {MARGIN:.0%} on both judges, as in",
        "claims. After few training steps, samples are mostly noise, and a blur takes it away. So no claim is made",
        f"where full width's own images pass after a blur of strength {CLEAR:g}. The last column counts the plans that",
        "win nevertheless.",
        "",
        *markdown_lines(["training steps", "blurred plans that pass", "claims", "blurred plans that win"], counted),
        "",
        *markdown_lines(shown.columns, cells),
    ]


def read_section(lines: Sequence[str]) -> pd.DataFrame:
    """Return the table of scores in a section that was written before."""
    last = len(lines) - next((i for i, line in enumerate(reversed(lines)) if not line.startswith("|")), len(lines))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[last:]]
    if len(rows) < 3:
        return pd.DataFrame()
    table = pd.DataFrame(rows[2:], columns=rows[0])
    numbers = [name for name in table.columns if name not in ("judge", "training steps")]
    return table.astype(dict.fromkeys(numbers, float) | {"training steps": int})
