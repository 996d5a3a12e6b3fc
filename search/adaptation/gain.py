"""Record what a second stage cost and gained: adaptation.parquet, and the MLflow run of the supernet that it made."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from stepfront.search.config import RunSettings
from stepfront.search.mlflow_runs.background import BackgroundWriter
from stepfront.search.mlflow_runs.client import artifact_folder, tracking_uri
from stepfront.search.mlflow_runs.mlflow_run import RunStart, dataset_input, find_or_begin, finite_metrics
from stepfront.search.mlflow_runs.run_context import context_tags
from stepfront.search.mlflow_runs.written import WrittenTraining
from stepfront.search.records.run_directory import SETTINGS_FILE
from stepfront.search.tracking.experiments import training_experiment
from stepfront.search.tracking.training_log import warn_of
from stepfront.search.tracking.training_runs import training_params
from stepfront.tables.adaptation import adaptation_note, group_costs
from stepfront.tables.parquet import read_table, write_table
from stepfront.tables.schema import ADAPTATION, TRAINING
from stepfront.trainers.adaptation.second_stage import OF_THE_GROUPS, SecondStage
from stepfront.trainers.baselines.plain_network import step_macs
from stepfront.trainers.networks.card import CARD_FILE, SupernetCard
from stepfront.trainers.training.sandwich import images_per_step
from stepfront.trainers.validation import settings_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

MAX_NOTE_CHARACTERS = 7900
"""Characters of a run's description; MLflow takes 8,000."""

Stage = SecondStage[RunSettings]


def gflops_of_group(second: Stage) -> float:
    """Return the GFLOPs of one group's training; a backward pass takes two forward passes."""
    card = second.card
    macs = step_macs(second.settings, card.image_channels, card.resolution)
    return 3 * 2e-9 * macs * second.settings.training.batch * second.adapt.steps


def record_gain(second: Stage, card: SupernetCard, settings: RunSettings, directory: Path) -> None:
    """Write the table of a finished second stage, and its run in MLflow, where they are missing."""
    path = directory / ADAPTATION
    if not path.exists():
        write_table(gain_table(second, card), path)
    table = read_table(path)
    writer = BackgroundWriter(
        tracking_uri(settings.tracking.uri), lambda client: _Run(client, settings, card, directory)
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


class _Run:
    """The MLflow run of an adapted supernet, found or begun."""

    def __init__(self, client: MlflowClient, settings: RunSettings, card: SupernetCard, directory: Path) -> None:
        self._client, self._card, self._directory = client, card, directory
        written = WrittenTraining.read(directory)
        written.training_id = written.training_id or uuid.uuid4().hex[:12]
        written.save(directory)  # before the run is made: a driver killed in between finds it by this id
        self._run, _ = find_or_begin(client, written, _start(settings, card, written.training_id))
        written.save(directory)

    def write(self, table: pd.DataFrame) -> None:
        """Write losses, costs, description and files, and end the run, unless that is done."""
        run = self._client.get_run(self._run.run_id)
        if run.info.status == "FINISHED" and run.data.tags.get("supernet_digest") == self._card.digest:
            return
        costs = group_costs(table)
        totals = {"tflops": costs["gflops"].sum() / 1000, "images": costs["images"].sum()}
        totals |= {"seconds": costs["seconds"].sum(min_count=len(costs))}
        totals |= {f"loss/{float(width):g}": loss for width, loss in self._card.made_with["held_out_losses"].items()}
        metrics = finite_metrics(totals)
        for row in table.to_dict("records"):  # a chart of them has the groups on its axis
            losses = {f"{name}/{row['width']:g}": row[name] for name in ("loss_before", "loss_after")}
            metrics += finite_metrics(losses, int(row["group"]))
        note = adaptation_note(table)[:MAX_NOTE_CHARACTERS]
        self._run.log(metrics, tags={"mlflow.note.content": note, "supernet_digest": self._card.digest})
        self._run.log_files([self._directory / name for name in (CARD_FILE, SETTINGS_FILE, ADAPTATION)])
        self._run.end("FINISHED")


def _start(settings: RunSettings, card: SupernetCard, training_id: str) -> RunStart:
    left_out = {f"training.{name}" for name in OF_THE_GROUPS}
    params = {name: value for name, value in training_params(settings).items() if name not in left_out}
    adapt = _flat(settings_json(settings.adapt), "adapt")
    adapted_from = str(card.made_with.get("adapted", {}).get("from", ""))
    tags = {"dataset": card.data_name, "fingerprint": card.data_fingerprint, "adapted_from": adapted_from}
    return RunStart(
        experiment=training_experiment(settings),
        artifacts=artifact_folder(settings.tracking.uri),
        name=settings.name,
        identity={"kind": "training", "training_id": training_id},
        tags=context_tags() | tags,
        params=params | adapt,
        dataset=dataset_input(settings, card.data_name, card.data_fingerprint, "training", {}),
    )


def _flat(content: Mapping[str, Any], above: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{above}.{key}") if isinstance(value, dict) else {f"{above}.{key}": value}
    return flat
