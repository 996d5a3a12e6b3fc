"""Record what a second stage cost and gained: adaptation.parquet, and the MLflow run of the supernet that it made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from stepfront.checksums import changed_since_written
from stepfront.search.config import RunSettings
from stepfront.search.mlflow_runs.background import BackgroundWriter
from stepfront.search.mlflow_runs.client import tracking_uri
from stepfront.search.tracking.training_log import warn_of
from stepfront.search.tracking.training_runs import AdaptationRun, training_params
from stepfront.tables.parquet import read_table, write_table
from stepfront.tables.schema import ADAPTATION, TRAINING
from stepfront.trainers.adaptation.second_stage import OF_THE_GROUPS, SecondStage
from stepfront.trainers.baselines.plain_network import step_macs
from stepfront.trainers.networks.card import SupernetCard
from stepfront.trainers.training.sandwich import images_per_step
from stepfront.trainers.validation import settings_json

Stage = SecondStage[RunSettings]


def gflops_of_group(second: Stage) -> float:
    """Return the GFLOPs of a group's training; a backward pass is two forward passes, and a teacher's are left out."""
    card = second.card
    macs = step_macs(second.settings, card.image_channels, card.resolution)
    return 3 * 2e-9 * macs * second.settings.training.batch * second.adapt.steps


def record_gain(second: Stage, card: SupernetCard, settings: RunSettings, directory: Path) -> None:
    """Write the table of a finished second stage, and its run in MLflow, where they are missing."""
    path = directory / ADAPTATION
    if not path.exists() or changed_since_written(path):
        write_table(gain_table(second, card), path)
    table = read_table(path)
    params = _params(settings)
    writer = BackgroundWriter(
        tracking_uri(settings.tracking.uri), lambda client: AdaptationRun(client, settings, params, directory)
    )
    writer.start(lambda run: run.write(table))
    warn_of(writer.wait(120), "adapt")


def gain_table(second: Stage, card: SupernetCard) -> pd.DataFrame:
    """Return one row per group and width: losses from the card, and what the group's training cost."""
    facts, adapt = card.made_with, second.adapt
    factors = facts.get("merge_factors") or [math.nan] * len(second.groups.first)
    times = second.groups.times(card.diffusion.steps)
    found = []
    for number, (first, last) in enumerate(times):
        group = {"group": number + 1, "first_time": first, "last_time": last}
        cost = {
            "factor": float(factors[number]),
            "steps": adapt.steps,
            "images": adapt.steps * second.settings.training.batch,
            "gflops": gflops_of_group(second),
            "seconds": _seconds(second, number),
        }
        before, after = facts["losses_before"][number], facts["losses_after"][number]
        for width in card.network.widths:
            losses = {"width": width, "loss_before": before[str(width)], "loss_after": after[str(width)]}
            found.append(group | losses | cost)
    return pd.DataFrame(found)


def _seconds(second: Stage, number: int) -> float:
    """Return the seconds of a group's training steps, by the speed at its checkpoints; NaN where they are unknown.

    Steps that an interrupted training repeated count once.
    """
    path = second.directory / f"group-{number}" / TRAINING
    if not path.exists():
        return math.nan
    table = read_table(path)
    steps = table["step"].diff().fillna(table["step"])
    images = steps * images_per_step(second.settings.training, second.settings.network.sizes)
    return float((images / table["images_per_second"]).sum())


def _params(settings: RunSettings) -> dict[str, Any]:
    """Return the settings that decide the weights: those in `adapt`, and what they leave of a training's."""
    of_training = {f"training.{name}" for name in OF_THE_GROUPS}
    params = {name: value for name, value in training_params(settings).items() if name not in of_training}
    return params | _flat(settings_json(settings.adapt), "adapt")


def _flat(content: Mapping[str, Any], above: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{above}.{key}") if isinstance(value, dict) else {f"{above}.{key}": value}
    return flat
