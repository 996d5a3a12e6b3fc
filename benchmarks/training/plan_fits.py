"""Compare weights fitted to a plan with a second stage of the whole supernet, at equal network FLOPs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from benchmarks.samplers.case import FIRST_SEED, Case, open_case
from stepfront.trainers.adaptation.plan_weights import Call, fit_weights
from stepfront.trainers.baselines.plain_network import step_macs
from stepfront.trainers.config import TrainerSettings
from stepfront.trainers.data import ImageData
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.schedule import time_grid
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.training_settings import AdaptSettings
from stepfront.trainers.variant import parse_runs

PLANS = ("10x0.25", "10x0.50", "5x0.50 5x1.00", "20x0.25", "20x0.50")
"""The plans that weights are fitted to, in sampling order."""

SUPERNET, UNDIVIDED, FITTED = "supernet", "undivided", "fitted"
"""What a plan runs on: the first training's weights, those of the second stage of all widths, and its own."""


def fit_steps(widths: Sequence[float], macs: Mapping[float, int], extra: float) -> int:
    """Return the training steps of a fit that cost `extra`, in MACs of forward passes per image of a batch.

    A step runs forward and backward, which is three forward passes, and the teacher's forward pass.
    """
    step = sum(macs[width] for width in widths) / len(widths) + macs[1.0] / 3
    return max(1, round(extra / step))


def measure_fit(
    text: str,
    settings: TrainerSettings,
    data: ImageData,
    folders: Mapping[str, Path],
    extra: int,
    sampler: tuple[str, str],
    images: int,
    device: torch.device,
) -> pd.DataFrame:
    """Fit weights to a plan, and score it on the weights in `folders` and on its own, noise seed by noise seed.

    `extra` are sandwich steps, whose network FLOPs the fit has; `sampler` are solver and grid, and `images` those of a
    score.
    """
    shape, network, widths = (data.channels, data.resolution), settings.network, parse_runs(text)
    macs = {width: count_width(network, *shape, width).macs for width in network.widths}
    cases = {name: open_case(folder, device, images) for name, folder in folders.items()}
    first = cases[SUPERNET]
    times = tuple(time_grid(first.schedule, sampler[1], len(widths)))
    plan = Plan(times, widths, sampler[0], grid=sampler[1])
    steps = fit_steps(widths, macs, extra * step_macs(settings, *shape))
    calls = {w: tuple(Call(t, t) for t, own in zip(times, widths, strict=True) if own == w) for w in Counter(widths)}
    fitted = fit_weights(first.supernet, settings, AdaptSettings(), data, calls, steps, device=device)
    own = replace(first, supernet=fitted.supernet, _networks={})
    rows = [
        {"plan": text, "weights": name} | row
        for name, case in {**cases, FITTED: own}.items()
        for row in _scores(case, plan)
    ]
    return pd.DataFrame(rows)


def _scores(case: Case, plan: Plan) -> list[dict[str, object]]:
    seeds = range(FIRST_SEED, FIRST_SEED + 3)
    found = {seed: case.scores(plan, seed) for seed in seeds}
    return [{"noise": seed, "judge": judge, "fid": fid} for seed in seeds for judge, fid in found[seed].items()]


def fit_table(rows: pd.DataFrame, judge: str) -> pd.DataFrame:
    """Return FID by plan and weights: the mean over trainings and noise, and the fitted one's share of the undivided.

    The share is the mean over training seeds, with its standard error.
    """
    by_seed = rows[rows["judge"] == judge].groupby(["plan", "weights", "seed"])["fid"].mean()
    table = by_seed.unstack("weights")[[SUPERNET, UNDIVIDED, FITTED]]
    share = (table[FITTED] / table[UNDIVIDED]).groupby("plan")
    error = share.sem()
    shares = {p: f"{m:.2f}" + (f" ± {error[p]:.2f}" if error[p] == error[p] else "") for p, m in share.mean().items()}
    means = table.groupby("plan").mean().map("{:.2f}".format)
    found = means.assign(**{"fitted / undivided": pd.Series(shares)}).rename_axis(columns=None)
    return found.loc[[plan for plan in PLANS if plan in found.index] or found.index]
