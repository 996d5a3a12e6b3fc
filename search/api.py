"""Offer the whole method to Python: train, search, read the front, sample a point.

The command line and notebooks call the same functions.  `import stepfront` exports what stands here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console

from stepfront.dashboards.progress import SearchProgress, TrainingProgress, progress_bar
from stepfront.dashboards.terminal.lines import print_event
from stepfront.environment import disable_telemetry
from stepfront.search.config import RunSettings, load_settings
from stepfront.search.records.run_directory import find_search
from stepfront.tables.points import pick_point
from stepfront.tables.search_tables import read_snapshot

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from stepfront.search.driver.search_report import SearchReport
    from stepfront.search.storage.run_location import RunLocation
    from stepfront.trainers.networks.card import SupernetCard
    from stepfront.trainers.training.trainer import TrainingReport

__all__ = ["Search", "TrainedSupernet", "adapt", "load_settings", "open_search", "run_search", "train"]

Progress: TypeAlias = bool | Console | Callable[[int, int], None]
"""How progress is shown: True draws a bar in terminals and notebooks, False is silent, a console is where the bar is
drawn, and a function is called with the finished and the total number of steps or trials (0: no limit of trials)."""


@dataclass(frozen=True)
class TrainedSupernet:
    """A supernet on the disk; `new` tells whether the call trained it or found it complete."""

    directory: Path
    card: SupernetCard
    new: bool

    @property
    def held_out_losses(self) -> dict[float, float]:
        """The denoising loss of each width, at full depth, on held-out images; empty for an imported supernet."""
        return {float(width): loss for width, loss in self.card.made_with.get("held_out_losses", {}).items()}


def train(settings: RunSettings, *, fresh: bool = False, progress: Progress = True) -> TrainedSupernet:
    """Train the supernet of the settings, or continue an interrupted training.

    A complete supernet of these settings is returned as it is.  `fresh` deletes it and starts over.  Raises InputError
    when the data can't be read or the directory holds a supernet of other settings.
    """
    from stepfront.search.storage.run_location import local_settings

    with local_settings(settings, trains=True) as (local, _):
        return train_local(local, fresh, progress)


def train_local(settings: RunSettings, fresh: bool, progress: Progress) -> TrainedSupernet:
    """Train as `train` does, with settings whose folders are local."""
    from stepfront.search.driver.train import run_training

    disable_telemetry()
    with _shown(progress) as show:
        card, new = run_training(settings, fresh, show, _stage(settings.name, progress))
    return TrainedSupernet(settings.supernet_directory, card, new)


def adapt(
    settings: RunSettings, base: str | os.PathLike[str], *, fresh: bool = False, progress: Progress = True
) -> TrainedSupernet:
    """Train the supernet at `base` further, one copy per group of times (`settings.adapt`), as a run beside its own.

    That run is called NAME-groups-COUNT, and its supernet has weights per group; with adapt.merge it is an ordinary
    one in NAME-merged-COUNT.  An interrupted call is continued; `fresh` starts over.  Raises InputError when
    supernet, data and settings do not fit each other.
    """
    from stepfront.search.adaptation.adapt import adapted_settings
    from stepfront.search.storage.run_location import local_settings

    with local_settings(adapted_settings(settings), trains=True) as (local, _):
        return adapt_local(local, os.fspath(base), fresh, progress)


def adapt_local(settings: RunSettings, base: str, fresh: bool, progress: Progress) -> TrainedSupernet:
    """Adapt as `adapt` does, with the settings of the new run, whose folders are local."""
    from stepfront.search.adaptation.adapt import run_adaptation

    disable_telemetry()
    with _shown(progress) as show:
        done = run_adaptation(settings, base, fresh, show, _stage(settings.name, progress))
    return TrainedSupernet(done.directory, done.card, done.new)


def run_search(
    settings: RunSettings, *, fresh: bool = False, progress: Progress = True, publish: bool = True
) -> Search:
    """Search the widths per step until the budget is used, or continue from where a search stopped.

    The supernet must be trained.  `fresh` deletes the search and starts over.  With `publish`, sample images, report
    and MLflow run are written in the end.  Raises InputError when supernet, data or an existing study do not fit the
    settings.
    """
    from stepfront.search.storage.run_location import local_settings

    with local_settings(settings) as (local, location):
        search = search_local(local, location, fresh, progress, command="stepfront.run_search")
        if publish:
            search.publish()
        return search


def search_local(
    settings: RunSettings,
    location: RunLocation,
    fresh: bool,
    progress: Progress,
    command: str,
    extend: bool = False,
) -> Search:
    """Search as `run_search` does, with settings whose folders are local, and publish nothing.

    Hints name the run by its `location`; `command` is recorded as what started the search.  With `extend` the settings
    may have a larger space than the search had so far.
    """
    from stepfront.search.driver.search import run_search as run

    disable_telemetry()
    with SearchProgress(_console(progress)) as view:
        directory = run(
            settings, fresh, _View(view, progress), _stage(settings.name, progress), command, location, extend
        )
    return Search(directory, settings)


def open_search(place: str | os.PathLike[str]) -> Search:
    """Open a search by its directory, its run's directory, or the URI of either.

    A URI is read into a local copy, and what is written into the copy stays there.  Raises InputError when there is no
    search.
    """
    from stepfront.search.storage.run_location import open_for_reading

    return Search(*find_search(open_for_reading(os.fspath(place)).local))


@dataclass(frozen=True)
class Search:
    """A search in its directory, with the settings that it was begun with."""

    directory: Path
    settings: RunSettings

    @property
    def facts(self) -> Mapping[str, Any]:
        """What search.json holds: where the search comes from, its cost and its result."""
        return read_snapshot(self.directory).facts

    def front(self) -> pd.DataFrame:
        """Return the Pareto front, cheapest point first; the column `label` marks knee, best and cheapest."""
        return read_snapshot(self.directory).front

    def trials(self) -> pd.DataFrame:
        """Return all finished trials in the order of their numbers."""
        return read_snapshot(self.directory).trials

    def figure(self) -> Figure:
        """Return the interactive figure of trials, front and baselines, by plotly."""
        from stepfront.dashboards.figures import front_data, front_figure
        from stepfront.tables.search_tables import read_tables

        return front_figure(front_data(read_tables(self.directory)))

    def point(self, point: str = "knee") -> pd.Series:
        """Return a point of the front by label, trial number or query, such as `knee`, `17` or `fid<=12`.

        Raises InputError when no point fits.
        """
        return pick_point(self.front(), str(point))

    def sample(
        self, point: str = "knee", *, images: int = 16, seed: int = 0, label: int | None = None
    ) -> NDArray[np.uint8]:
        """Sample images of a point, uint8 [images, channels, height, width]; equal seeds give equal images.

        Raises InputError when no point fits, or when `label` is not a class of the supernet.
        """
        return self.labelled_sample(point, images=images, seed=seed, label=label)[0]

    def labelled_sample(
        self, point: str = "knee", *, images: int = 16, seed: int = 0, label: int | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
        """Sample images of a point with their classes [images]; the classes are None for an unconditional supernet."""
        from stepfront.search.driver.publish import make_evaluator, sample_pixels
        from stepfront.search.problem.load import load_problem_of_search
        from stepfront.search.records.learnt_samplers import read_samplers
        from stepfront.search.records.plan_rows import plan_of_row

        row = self.point(point)
        evaluator = make_evaluator(load_problem_of_search(self.settings, self.directory), self.directory)
        pixels = sample_pixels(evaluator, plan_of_row(row, read_samplers(self.directory)), images, seed, label)
        return pixels, evaluator.labels(images, seed, label)

    def confirm(self, *, images: int | None = None, seeds: int | None = None, progress: Progress = True) -> Search:
        """Score the front again on held-out noise seeds; both numbers default to the settings.

        A plan that can't be scored on each seed is left out, with a warning.  Raises InputError for fewer than 2 seeds,
        and when no plan can be scored.
        """
        from stepfront.search.scoring.confirm import run_confirmation

        disable_telemetry()
        with progress_bar(_console(progress), "confirming the front") as update:

            def show(what: str) -> Callable[[int, int], None]:
                return lambda done, total: update(done, total, what)

            scores = progress if callable(progress) else show("confirming the front")
            run_confirmation(self.directory, images, seeds, scores, show("training the second judge"))
        return self

    def report(self) -> Path:
        """Write the report and the pictures of the front; return the page, which needs no internet."""
        from stepfront.search.driver.publish import draw_images, draw_report
        from stepfront.search.problem.load import load_problem_of_search

        if not (self.directory / "images" / "index.json").exists():
            draw_images(load_problem_of_search(self.settings, self.directory), self.directory)
        return draw_report(self.directory)

    def publish(self) -> tuple[str, str]:
        """Write sample images, report and MLflow run.

        Returns what went wrong with MLflow, or an empty text, and what opens MLflow, or an empty text.
        """
        from stepfront.search.driver.publish import publish

        return publish(self.settings, self.directory, finished=self.facts.get("finished") is not None)

    def export(self, point: str = "knee", *, out: str | os.PathLike[str]) -> dict[str, Any]:
        """Export a point as a folder of weights, plan.json and sample.py that needs no stepfront; return its plan.json.

        Raises InputError when `out` holds other files.
        """
        from stepfront.search.export.program import export_point

        return export_point(self.directory, str(point), Path(out))


class _View:
    """Shows a running search in the way that `progress` asks for."""

    def __init__(self, view: SearchProgress, progress: Progress) -> None:
        self._view, self._progress = view, progress

    def update(self, report: SearchReport) -> None:
        """Show the state of the search."""
        if callable(self._progress):
            self._progress(report.finished, report.total)
        elif self._progress is not False:
            self._view.update(
                report.finished,
                report.total,
                report.failed,
                report.front,
                report.hypervolumes,
                report.workers,
                report.seconds,
                report.first_failure,
            )


def _console(progress: Progress) -> Console:
    if isinstance(progress, Console):
        return progress
    return Console(highlight=False, soft_wrap=True, quiet=progress is not True)


@contextlib.contextmanager
def _shown(progress: Progress) -> Iterator[Callable[[TrainingReport], None]]:
    """Yield what a training calls with its reports: they go to the caller's function, or to the terminal."""
    with TrainingProgress(_console(progress)) as view:

        def show(report: TrainingReport) -> None:
            if callable(progress):
                progress(report.step, report.total)
            else:
                view.update(report.step, report.total, report.losses)

        yield show


def _stage(name: str, progress: Progress) -> Callable[[str], None]:
    console = _console(progress)
    return lambda text: print_event(console, f"{name}: {text}", style="dim")
