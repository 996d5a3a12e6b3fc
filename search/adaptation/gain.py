"""Record what a second stage cost and gained: adaptation.parquet, and the MLflow run of the supernet that it made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from stepfront.checksums import changed_since_written
from stepfront.search.adaptation.group_logs import GroupLogs
from stepfront.search.config import RunSettings
from stepfront.search.mlflow_runs.background import BackgroundWriter
from stepfront.search.mlflow_runs.client import tracking_uri
from stepfront.search.mlflow_runs.written import WrittenTraining
from stepfront.search.tracking.training_runs import AdaptationRuns, training_params
from stepfront.tables.parquet import read_table, write_table
from stepfront.tables.schema import ADAPTATION, TRAINING
from stepfront.trainers.adaptation.second_stage import OF_THE_GROUPS, SecondStage
from stepfront.trainers.baselines.plain_network import step_macs
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.networks.card import SupernetCard, read_card
from stepfront.trainers.training.sandwich import images_per_step
from stepfront.trainers.validation import settings_json

Stage = SecondStage[RunSettings]


def gflops_of_group(second: Stage) -> float:
    """Return the GFLOPs of a group's training: forward passes, backward passes of two each, and those of a teacher.

    In-place distillation needs none of its own: the widest network has run.
    """
    card, training = second.card, second.settings.training
    macs = 3 * step_macs(second.settings, card.image_channels, card.resolution)
    if training.teacher:
        teacher = count_width(read_card(Path(training.teacher)).network, card.image_channels, card.resolution, 1.0)
        macs += teacher.macs * images_per_step(training, second.settings.network.sizes) / training.batch
    return 2e-9 * macs * training.batch * second.adapt.steps


class AdaptationLog:
    """Record a second stage: adaptation.parquet, and the run in MLflow that those of the groups are nested below.

    `groups` are the logs of the groups.
    """

    def __init__(self, second: Stage, settings: RunSettings, directory: Path) -> None:
        self._second, self._directory = second, directory
        self._runs = AdaptationRuns(settings, _params(settings), directory, second.card)
        self._writer = BackgroundWriter(tracking_uri(settings.tracking.uri), self._runs.open)
        self.groups = GroupLogs(self._runs.run_id)

    def interrupt(self) -> None:
        """End the run as one that was interrupted, where it was begun."""
        if WrittenTraining.read(self._directory).run_id:
            self._writer.start(lambda run: run.set_status("KILLED"))
            self._writer.wait(10)

    def finish(self, card: SupernetCard) -> None:
        """Write the table of the finished stage, and its run, where they are missing."""
        path = self._directory / ADAPTATION
        if not path.exists() or changed_since_written(path):
            write_table(gain_table(self._second, card), path)
        table = read_table(path)
        self._writer.start(lambda run: run.write(table))
        self.groups.wait(self._writer.wait)


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
    path = second.folders[number] / TRAINING
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
