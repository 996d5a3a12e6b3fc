"""Run one step of the method for a verb, and show its progress and results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stepfront.addresses import redacted
from stepfront.search.cli.terminal import LiveView, Output

if TYPE_CHECKING:
    from stepfront.search.config import RunSettings
    from stepfront.search.storage.run_location import RunLocation


def train_step(settings: RunSettings, fresh: bool, output: Output) -> None:
    """Train the supernet of the settings."""
    from stepfront.dashboards.progress import TrainingProgress
    from stepfront.search.driver.train import run_training

    with TrainingProgress(output.console) as progress:
        card, trained = run_training(
            settings, fresh, lambda r: progress.update(r.step, r.total, r.losses), output.stage(settings.name)
        )
    losses = card.made_with.get("held_out_losses", {})
    output.message(f"supernet {'trained' if trained else 'exists already'}: {settings.supernet_directory}")
    if losses:
        by_width = ", ".join(f"{float(width):g}: {loss:.4f}" for width, loss in losses.items())
        output.message(f"held-out loss by width  {by_width}")


def search_step(settings: RunSettings, fresh: bool, location: RunLocation, output: Output) -> None:
    """Run the search of the settings to the end of its budget; hints name its run by the location."""
    from stepfront.dashboards.progress import SearchProgress
    from stepfront.search.driver.search import run_search

    command = redacted(" ".join(["stepfront", *sys.argv[1:]]))
    with SearchProgress(output.console) as progress:
        run_search(settings, fresh, LiveView(progress), output.stage(settings.name), command, location)


def confirm_step(search: Path, images: int | None, seeds: int | None, output: Output) -> None:
    """Score the front of a search on held-out noise seeds."""
    from stepfront.search.driver.confirm import run_confirmation

    with output.bar("confirming the front") as update:
        run_confirmation(search, images, seeds, lambda done, total: update(done, total, "confirming the front"))


def publish_step(settings: RunSettings, output: Output) -> None:
    """Write images, report and MLflow, and print the front and where everything is."""
    from stepfront.dashboards.progress import front_table
    from stepfront.search.driver.publish import publish
    from stepfront.tables.search_tables import read_snapshot

    directory = settings.search_directory
    output.stage(settings.name)("writing report and MLflow")
    snapshot = read_snapshot(directory)
    problem, opening = publish(settings, directory, finished=snapshot.facts.get("finished") is not None)
    output.message()
    output.message(front_table(read_snapshot(directory).front, snapshot.facts.get("full", {}).get("gflops")))
    output.message(f"\ntables, study and images  {directory}")
    output.message(f"report                    {directory / 'report.html'}")
    if problem:
        output.message(f"MLflow was not written    {problem}; the search is complete without it")
    elif opening:
        output.message(f"MLflow                    {opening}")
