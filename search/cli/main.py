"""The verbs of `stepfront`: what a user types in, files and a few lines on the terminal out."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepfront.addresses import redacted
from stepfront.errors import InputError
from stepfront.search.cli.cluster import add_to as add_cluster
from stepfront.search.cli.models import add_to as add_models
from stepfront.search.cli.points import add_to as add_points
from stepfront.search.cli.terminal import Config, Fresh, LiveView, Overrides, Search, bar, out, stage
from stepfront.search.execution.interrupt import InterruptedSearchError

if TYPE_CHECKING:
    from stepfront.search.checks.doctor import Finding
    from stepfront.search.config import RunSettings
    from stepfront.search.storage.run_location import RunLocation

# Heavy imports stand where they are used, so that `stepfront --help` answers at once.

app = typer.Typer(
    name="stepfront",
    help="Finds which width of a slimmable diffusion network to run at which denoising step.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="First: stepfront quickstart.  Each verb has --help with an example.",
)
INTERRUPTED = "interrupted; the same command goes on from here"


def main() -> None:
    """The command.  A user's error is one line and exit code 2; Ctrl-C is 130."""
    try:
        code = app(standalone_mode=False) or 0  # typer hands back the code of an Exit, and 130 for Ctrl-C
        if code == 130:
            _fail(INTERRUPTED, code)
        sys.exit(code)
    except InputError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail(INTERRUPTED, code=130)
    except InterruptedSearchError as error:
        _fail(str(error), code=130)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            raise
        _fail(f"can't write {error.filename or 'to the disk'}: {error.strerror}")
    except Exception as error:
        # typer raises click's errors; which click it carries is its own affair.
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            _fail(error.format_message(), code=error.exit_code)
        if type(error).__name__ == "Abort":  # typer's word for Ctrl-C
            _fail(INTERRUPTED, code=130)
        if type(error).__name__ == "StorageInternalError":
            _fail(f"the search's storage can't be read: {error.__cause__ or error}")
        raise


def _fail(message: str, code: int = 2) -> None:
    sys.stdout.flush()
    print(f"stepfront: {' '.join(message.split())}", file=sys.stderr)
    sys.stderr.flush()
    sys.exit(code)


@app.command(epilog="Example: stepfront train configs/fashion_mnist.yaml --from runs/digits --set training.steps=500")
def train(
    config: Config,
    set_: Overrides = None,
    fresh: Fresh = False,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="SUPERNET", help="begin with the weights of another supernet")
    ] = None,
) -> None:
    """Train the supernet of a settings file, or go on where a training was cut off."""
    from stepfront.search.config import load_settings
    from stepfront.search.records.run_directory import find_supernet
    from stepfront.search.storage.run_location import local_settings, open_for_reading

    begin = [f"training.start={find_supernet(open_for_reading(from_).local)}"] if from_ else []
    with local_settings(load_settings(config, [*(set_ or []), *begin]), trains=True) as (settings, _):
        _train(settings, fresh)


@app.command(epilog="Example: stepfront search configs/digits.yaml --set budget.trials=200 --set workers.count=2")
def search(
    config: Config,
    set_: Overrides = None,
    fresh: Fresh = False,
    from_: Annotated[
        list[str] | None, typer.Option("--from", metavar="SEARCH", help="begin with the front of an earlier search")
    ] = None,
) -> None:
    """Search per-step widths of a trained supernet; go on where a search was cut off."""
    from stepfront.search.config import load_settings
    from stepfront.search.records.run_directory import warm_settings
    from stepfront.search.storage.run_location import local_settings, open_for_reading

    given, earlier = load_settings(config, set_ or []), [open_for_reading(place).local for place in from_ or []]
    with local_settings(warm_settings(given, earlier)) as (settings, location):
        _search(settings, fresh, location)
        _publish(settings)


@app.command(epilog="Example: stepfront resume runs/digits")
def resume(search: Search) -> None:
    """Go on with a search that was cut off, with the settings that it was begun with."""
    from stepfront.search.records.run_directory import resume_settings
    from stepfront.search.storage.run_location import open_for_writing

    with open_for_writing(search) as location:
        settings = resume_settings(location.local)
        _search(settings, False, location)
        _publish(settings)


@app.command(epilog="Example: stepfront extend runs/digits --trials 200")
def extend(
    search: Search,
    trials: Annotated[int | None, typer.Option(min=1, help="so many more trials")] = None,
    minutes: Annotated[float | None, typer.Option(min=1e-3, help="so many more minutes")] = None,
    tflops: Annotated[float | None, typer.Option(min=1e-9, help="so many more network FLOPs, in 1e12")] = None,
) -> None:
    """Go on with a finished search: the same study, the same MLflow run, more budget."""
    from stepfront.search.driver.search import extended_settings
    from stepfront.search.storage.run_location import open_for_writing

    with open_for_writing(search) as location:
        settings = extended_settings(location.local, trials, minutes, tflops)
        _search(settings, False, location)
        _publish(settings)


@app.command(epilog="Example: stepfront sync runs/digits")
def sync(search: Search) -> None:
    """Bring MLflow in line with a search, after a server that was away."""
    from stepfront.search.driver.publish import log_to_mlflow
    from stepfront.search.records.run_directory import find_search
    from stepfront.search.storage.run_location import open_for_writing
    from stepfront.tables.search_tables import read_snapshot

    with open_for_writing(search) as location:
        directory, settings = find_search(location.local)
        finished = read_snapshot(directory).facts.get("finished") is not None
        problem, opening = log_to_mlflow(settings, directory, finished)
    if problem:
        raise InputError(problem)
    out.print(
        f"MLflow  {opening}" if opening else "this search keeps out of MLflow (tracking.uri is null)", markup=False
    )


@app.command(epilog="Example: stepfront confirm runs/digits --images 2048 --seeds 5")
def confirm(
    search: Search,
    images: Annotated[int | None, typer.Option(min=16, help="images a score; default: confirm.images")] = None,
    seeds: Annotated[int | None, typer.Option(min=2, help="noise seeds; default: confirm.seeds")] = None,
) -> None:
    """Score the front again on noise that the search never saw."""
    from stepfront.search.records.run_directory import find_search
    from stepfront.search.storage.run_location import open_for_writing

    with open_for_writing(search) as location:
        _, settings = find_search(location.local)
        _confirm(location.local, images, seeds)
        _publish(settings)


@app.command(epilog="Example: stepfront baselines runs/digits --methods uniform,one_cut,monotone --evaluations 60")
def baselines(
    search: Search,
    methods: Annotated[str, typer.Option(help="comma-separated; default: all")] = "",
    evaluations: Annotated[int | None, typer.Option(min=1, help="a method; default: as many as the search had")] = None,
) -> None:
    """Score what the search must beat: hand-made plans, random plans and DDSM's own search, at equal evaluations."""
    from stepfront.search.driver.baselines import METHODS, run_baselines
    from stepfront.search.driver.versus import advice
    from stepfront.search.records.run_directory import find_search
    from stepfront.search.storage.run_location import open_for_writing
    from stepfront.tables.parquet import read_table
    from stepfront.tables.schema import METHOD_SCORES, VERSUS

    wanted = [name.strip() for name in methods.split(",") if name.strip()] or list(METHODS)
    with open_for_writing(search) as location:
        directory, settings = find_search(location.local)
        with bar("baselines") as told:
            run_baselines(
                location.local,
                wanted,
                evaluations,
                lambda method, done, total: told(done, total, f"baseline {method}"),
            )
        _publish(settings)
    table = read_table(directory / METHOD_SCORES)
    out.print()
    for _, row in table.sort_values("share", ascending=False).iterrows():
        out.print(
            f"{row['method']:<12} {row['evaluations']:>5} evaluations  hypervolume {row['share']:.1%} of all methods'"
        )
    if hint := advice(read_table(directory / VERSUS), settings):
        out.print(hint)


@app.command(epilog="Example: make quickstart, or stepfront quickstart --fresh")
def quickstart(set_: Overrides = None, fresh: Fresh = False) -> None:
    """Train, search, confirm and report on scikit-learn's digits: the whole path in a few minutes."""
    from stepfront.search.config import settings_from
    from stepfront.search.presets import preset
    from stepfront.search.storage.run_location import local_settings

    given = settings_from(preset("digits"), set_ or [])
    with local_settings(given, trains=True) as (settings, _):
        _train(settings, fresh)
    with local_settings(given) as (settings, location):
        _search(settings, fresh, location)
        _confirm(settings.search_directory, None, None)
        _publish(settings)


@app.command(epilog="Example: stepfront doctor configs/digits.yaml, or stepfront doctor runs/digits --repair")
def doctor(
    what: Annotated[
        str | None,
        typer.Argument(metavar="[CONFIG | SEARCH]", help="check what this file names, or whether this search is whole"),
    ] = None,
    set_: Overrides = None,
    repair: Annotated[bool, typer.Option("--repair", help="make a search's tables and report anew")] = False,
) -> None:
    """Say what of Ray, storage, MLflow, device and data is usable, or whether a search is whole."""
    from stepfront.search.storage.run_location import open_for_writing

    with contextlib.nullcontext() if what is None else open_for_writing(what) as location:
        findings = _examine(None if location is None else location.local, set_ or [], repair)
    for finding in findings:
        out.print(f"{'ok  ' if finding.usable else 'FAIL'}  {finding.what:<10} {finding.says}", markup=False)
    if not all(finding.usable for finding in findings):
        raise typer.Exit(1)


def _examine(what: Path | None, overrides: list[str], repair: bool) -> list[Finding]:
    from stepfront.search.checks import integrity
    from stepfront.search.checks.doctor import examine
    from stepfront.search.config import load_settings

    if what is not None and what.is_dir():
        if repair:
            _publish(integrity.repair(what))
        return integrity.examine_search(what)
    if repair:
        raise InputError(f"--repair mends a search's directory, such as runs/digits; given {what or 'none'}")
    return examine(load_settings(what, overrides) if what else None)


add_points(app)
add_cluster(app)
add_models(app)


def _train(settings: RunSettings, fresh: bool) -> None:
    from stepfront.dashboards.progress import TrainingProgress
    from stepfront.search.driver.train import run_training

    with TrainingProgress(out) as progress:
        card, worked = run_training(
            settings, fresh, lambda r: progress.update(r.step, r.total, r.losses), stage(settings.name)
        )
    losses = card.made_with.get("held_out_losses", {})
    said = ", ".join(f"{float(width):g}: {loss:.4f}" for width, loss in losses.items())
    out.print(f"supernet {'trained' if worked else 'is there already'}: {settings.supernet_directory}")
    if said:
        out.print(f"held-out loss by width  {said}")


def _search(settings: RunSettings, fresh: bool, location: RunLocation) -> None:
    from stepfront.dashboards.progress import SearchProgress
    from stepfront.search.driver.search import run_search

    with SearchProgress(out) as progress:
        view = LiveView(progress)
        command = redacted(" ".join(["stepfront", *sys.argv[1:]]))
        run_search(settings, fresh, view, stage(settings.name), command, location)


def _confirm(search: Path, images: int | None, seeds: int | None) -> None:
    from stepfront.search.driver.confirm import run_confirmation

    with bar("confirming the front") as told:
        run_confirmation(search, images, seeds, lambda done, total: told(done, total, "confirming the front"))


def _publish(settings: RunSettings) -> None:
    from stepfront.dashboards.progress import front_table
    from stepfront.search.driver.publish import publish
    from stepfront.tables.search_tables import read_snapshot

    directory = settings.search_directory
    stage(settings.name)("writing report and MLflow")
    snapshot = read_snapshot(directory)
    problem, opening = publish(settings, directory, finished=snapshot.facts.get("finished") is not None)
    out.print()
    out.print(front_table(read_snapshot(directory).front, snapshot.facts.get("full", {}).get("gflops")))
    out.print(f"\ntables, study and images  {directory}")
    out.print(f"report                    {directory / 'report.html'}")
    if problem:
        out.print(f"MLflow was not written    {problem}; the search is whole without it", markup=False)
    elif opening:
        out.print(f"MLflow                    {opening}", markup=False)


def environment_for_offline_use() -> None:
    """No part of this program phones home."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


environment_for_offline_use()
