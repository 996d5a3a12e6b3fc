"""Run one step of the method for a verb, and show its progress and results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stepfront.addresses import redacted
from stepfront.search.cli.terminal import Output

if TYPE_CHECKING:
    from stepfront.search.config import RunSettings
    from stepfront.search.storage.run_location import RunLocation


def train_step(settings: RunSettings, fresh: bool, output: Output) -> None:
    """Train the supernet of the settings."""
    from stepfront.search.api import train_local

    supernet = train_local(settings, fresh, output.console)
    output.message(f"supernet {'trained' if supernet.new else 'exists already'}: {supernet.directory}")
    if losses := supernet.held_out_losses:
        output.message(f"held-out loss by width  {', '.join(f'{w:g}: {loss:.4f}' for w, loss in losses.items())}")
    if shallow := supernet.card.made_with.get("depth_losses"):
        output.message(f"held-out loss by depth  {', '.join(f'{size}: {loss:.4f}' for size, loss in shallow.items())}")


def adapt_step(settings: RunSettings, base: str, fresh: bool, output: Output) -> None:
    """Train the groups of times of the settings' run from the supernet at `base`, and show what they gained."""
    from stepfront.search.api import adapt_local

    adapted = adapt_local(settings, base, fresh, output.console)
    output.message(f"supernet {'adapted' if adapted.new else 'exists already'}: {adapted.directory}")
    facts = adapted.card.made_with
    before, after = facts["losses_before"], facts["losses_after"]
    for number, (first, then) in enumerate(zip(before, after, strict=True), start=1):
        changes = ", ".join(f"{float(width):g}: {loss:.4f} -> {then[width]:.4f}" for width, loss in first.items())
        output.message(f"held-out loss by width, group {number}  {changes}")
    if factors := facts.get("merge_factors"):
        output.message(f"factors of the groups in the merged weights: {', '.join(f'{one:g}' for one in factors)}")
    output.message(f"search it with: stepfront search {adapted.directory / 'settings.yaml'}")


def search_step(
    settings: RunSettings, fresh: bool, location: RunLocation, output: Output, extend: bool = False
) -> None:
    """Run the search of the settings to the end of its budget; hints name its run by the location.

    With `extend` the settings may have a larger space than the search had so far.
    """
    from stepfront.search.api import search_local

    command = redacted(" ".join(["stepfront", *sys.argv[1:]]))
    search_local(settings, location, fresh, output.console, command, extend)


def confirm_step(search: Path, images: int | None, seeds: int | None, output: Output) -> None:
    """Score the front of a search on held-out noise seeds."""
    from stepfront.search.api import open_search

    open_search(search).confirm(images=images, seeds=seeds, progress=output.console)


def publish_step(settings: RunSettings, output: Output) -> None:
    """Write images, report and MLflow, and print the front and where everything is."""
    from stepfront.dashboards.claim import claim_sentences
    from stepfront.dashboards.earlier import earlier_sentences
    from stepfront.dashboards.terminal.front_table import front_listing
    from stepfront.search.api import Search
    from stepfront.tables.search_tables import own_score_names

    directory = settings.search_directory
    output.stage(settings.name)("writing report and MLflow")
    search = Search(directory, settings)
    problem, opening = search.publish()
    output.message()
    full = search.facts.get("full", {}).get("gflops")
    wide = f"stepfront front {directory} --wide"
    front = search.front()
    output.message(front_listing(front, full, own_score_names(search.facts), more=f"{wide} shows all"))
    for sentence in earlier_sentences(search.facts):
        output.message(sentence)
    for sentence in claim_sentences(search.facts.get("savings") or {}, front, str(directory)):
        output.message(f"\n{sentence}")
    output.message(f"\ntables, study and images  {directory}")
    output.message(f"report                    {directory / 'report.html'}")
    if problem:
        output.message(f"MLflow was not written    {problem}; the search is complete without it")
    elif opening:
        output.message(f"MLflow                    {opening}")
