"""The verbs of `stepfront`: what a user types in, files and a few lines on the terminal out."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from search.cli_cluster import add_to as add_cluster
from search.cli_models import add_to as add_models
from search.interrupt import InterruptedSearchError
from search.typed_uris import kept_at_uri, read_from_uri
from trainers.errors import InputError

if TYPE_CHECKING:
    from search.config import RunSettings
    from search.study import Ledger

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

out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="a YAML file, such as configs/digits.yaml")]
Search = Annotated[
    Path, typer.Argument(metavar="SEARCH", help="a search's or run's directory or URI, such as runs/digits")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a setting, such as budget.trials=200")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="start over; what the verb made before is deleted")]


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
@read_from_uri("from_")
def train(
    config: Config,
    set_: Overrides = None,
    fresh: Fresh = False,
    from_: Annotated[
        Path | None, typer.Option("--from", metavar="SUPERNET", help="begin with the weights of another supernet")
    ] = None,
) -> None:
    """Train the supernet of a settings file, or go on where a training was cut off."""
    from search.config import load_settings
    from search.directory import find_supernet
    from search.remote import settings_at_home

    begin = [f"training.start={find_supernet(from_)}"] if from_ else []
    with settings_at_home(load_settings(config, [*(set_ or []), *begin]), trains=True) as settings:
        _train(settings, fresh)


@app.command(epilog="Example: stepfront search configs/digits.yaml --set budget.trials=200 --set workers.count=2")
@read_from_uri("from_")
def search(
    config: Config,
    set_: Overrides = None,
    fresh: Fresh = False,
    from_: Annotated[
        list[Path] | None, typer.Option("--from", metavar="SEARCH", help="begin with the front of an earlier search")
    ] = None,
) -> None:
    """Search per-step widths of a trained supernet; go on where a search was cut off."""
    from search.config import load_settings
    from search.directory import warm_settings
    from search.remote import settings_at_home

    with settings_at_home(warm_settings(load_settings(config, set_ or []), from_ or [])) as settings:
        _search(settings, fresh)
        _publish(settings)


@app.command(epilog="Example: stepfront resume runs/digits")
@kept_at_uri("search")
def resume(search: Search) -> None:
    """Go on with a search that was cut off, with the settings that it was begun with."""
    from search.directory import resume_settings

    settings = resume_settings(search)
    _search(settings, fresh=False)
    _publish(settings)


@app.command(epilog="Example: stepfront extend runs/digits --trials 200")
@kept_at_uri("search")
def extend(
    search: Search,
    trials: Annotated[int | None, typer.Option(min=1, help="so many more trials")] = None,
    minutes: Annotated[float | None, typer.Option(min=1e-3, help="so many more minutes")] = None,
    tflops: Annotated[float | None, typer.Option(min=1e-9, help="so many more network FLOPs, in 1e12")] = None,
) -> None:
    """Go on with a finished search: the same study, the same MLflow run, more budget."""
    from search.directory import extended_settings

    settings = extended_settings(search, trials, minutes, tflops)
    _search(settings, fresh=False)
    _publish(settings)


@app.command(epilog="Example: stepfront sync runs/digits")
@kept_at_uri("search")
def sync(search: Search) -> None:
    """Bring MLflow in line with a search, after a server that was away."""
    from search.directory import find_search, read_snapshot
    from search.publish import log_to_mlflow

    directory, settings = find_search(search)
    finished = read_snapshot(directory).facts.get("finished") is not None
    problem, opening = log_to_mlflow(settings, directory, finished)
    if problem:
        raise InputError(problem)
    out.print(
        f"MLflow  {opening}" if opening else "this search keeps out of MLflow (tracking.uri is null)", markup=False
    )


@app.command(epilog="Example: stepfront confirm runs/digits --images 2048 --seeds 5")
@kept_at_uri("search")
def confirm(
    search: Search,
    images: Annotated[int | None, typer.Option(min=16, help="images a score; default: confirm.images")] = None,
    seeds: Annotated[int | None, typer.Option(min=2, help="noise seeds; default: confirm.seeds")] = None,
) -> None:
    """Score the front again on noise that the search never saw."""
    from search.directory import find_search

    _, settings = find_search(search)
    _confirm(search, images, seeds)
    _publish(settings)


@app.command(epilog="Example: stepfront controls runs/digits --methods uniform,one_cut,monotone --evaluations 60")
@kept_at_uri("search")
def controls(
    search: Search,
    methods: Annotated[str, typer.Option(help="comma-separated; default: all")] = "",
    evaluations: Annotated[int | None, typer.Option(min=1, help="a method; default: as many as the search had")] = None,
) -> None:
    """Score what the search must beat: hand-made plans, random plans and DDSM's own search, at equal evaluations."""
    import pandas as pd

    from search import tables
    from search.controls import METHODS, run_controls
    from search.directory import find_search

    directory, settings = find_search(search)
    wanted = [name.strip() for name in methods.split(",") if name.strip()] or list(METHODS)
    with _bar("controls") as told:
        run_controls(search, wanted, evaluations, lambda method, done, total: told(done, total, f"control {method}"))
    _publish(settings)
    table = pd.read_parquet(directory / tables.METHODS)
    out.print()
    for _, row in table.sort_values("share", ascending=False).iterrows():
        out.print(
            f"{row['method']:<12} {row['evaluations']:>5} evaluations  hypervolume {row['share']:.1%} of all methods'"
        )


@app.command(epilog="Example: stepfront front runs/digits --export front.csv")
@read_from_uri("search")
def front(
    search: Search,
    export: Annotated[Path | None, typer.Option(help="write a .csv, .json or .parquet file instead")] = None,
) -> None:
    """Print the front, or export it."""
    from dashboards.progress import front_table
    from search.directory import find_search, read_snapshot
    from search.tables import write_table
    from trainers.files import write_atomically, write_text

    directory, _ = find_search(search)
    snapshot = read_snapshot(directory)
    points = snapshot.front
    if export is None:
        out.print(front_table(points, snapshot.facts.get("full", {}).get("gflops")))
        return
    if export.suffix == ".parquet":
        write_table(points, export)
    elif export.suffix == ".csv":
        from search.publish import front_csv

        write_atomically(export, lambda path: front_csv(points).to_csv(path, index=False))
    elif export.suffix == ".json":
        write_text(export, json.dumps(json.loads(points.to_json(orient="records")), indent=1) + "\n")
    else:
        raise InputError(f"can't export to {export}; possible suffixes: .csv .json .parquet")
    out.print(f"{len(points)} points written to {export}")


@app.command(epilog="Example: stepfront sample runs/digits --point knee --images 64 --label 3 --out threes.png")
@read_from_uri("search")
def sample(
    search: Search,
    point: Annotated[str, typer.Option(help="knee, best, cheapest, a trial's number, or a query: 'fid<=12'")] = "knee",
    images: Annotated[int, typer.Option(min=1)] = 64,
    seed: Annotated[int, typer.Option(min=0, help="noise seed")] = 0,
    label: Annotated[
        int | None, typer.Option(help="the class of all images; default: drawn as often as in the training data")
    ] = None,
    out_: Annotated[Path | None, typer.Option("--out", help="the grid; default: SEARCH/samples/POINT.png")] = None,
) -> None:
    """Sample images of a front point: a grid (class by class, where there are any) as .png and all images as .npz
    beside it."""
    import numpy as np

    from search.directory import find_search, read_snapshot
    from search.ingredients import Ingredients
    from search.publish import by_class, make_evaluator, sample_pixels
    from search.tables import pick_point, plan_of_row
    from trainers.files import write_atomically
    from trainers.pictures import save_grid

    directory, settings = find_search(search)
    row = pick_point(read_snapshot(directory).front, point)
    suffix = "" if label is None else f"-label-{label}"
    grid = out_ or directory / "samples" / f"trial-{row['trial']}-seed-{seed}{suffix}.png"
    if grid.suffix != ".png":
        raise InputError(f"the grid is a .png file, given {grid}")
    evaluator = make_evaluator(Ingredients.of_search(settings, directory), directory)
    labels = evaluator.labels(images, seed, label)
    pixels = sample_pixels(evaluator, plan_of_row(row), images, seed, label)
    save_grid(by_class(pixels, labels), grid)
    arrays: dict[str, Any] = {"images": np.moveaxis(pixels, 1, 3)} | ({} if labels is None else {"labels": labels})

    def write(path: Path) -> None:
        with open(path, "wb") as file:
            np.savez_compressed(file, **arrays, plan=row["plan"], noise_seed=seed)

    write_atomically(grid.with_suffix(".npz"), write)
    out.print(f"trial {row['trial']}: {row['plan']}, {row['gflops']:.4g} GFLOPs, FID {row['fid']:.4g}")
    out.print(f"{images} images in {grid} and {grid.with_suffix('.npz')}")


@app.command(epilog="Example: stepfront report runs/digits")
@read_from_uri("search")
def report(search: Search) -> None:
    """Write the search's report: one HTML page that needs no network."""
    from search.directory import find_search
    from search.ingredients import Ingredients
    from search.publish import draw_images, draw_report

    directory, settings = find_search(search)
    if not (directory / "images" / "index.json").exists():
        draw_images(Ingredients.of_search(settings, directory), directory)
    out.print(f"report: {draw_report(directory)}")


@app.command(epilog="Example: make quickstart, or stepfront quickstart --fresh")
def quickstart(set_: Overrides = None, fresh: Fresh = False) -> None:
    """Train, search, confirm and report on scikit-learn's digits: the whole path in a few minutes."""
    from search.config import settings_from
    from search.presets import preset
    from search.remote import settings_at_home

    with settings_at_home(settings_from(preset("digits"), set_ or []), trains=True) as settings:
        _train(settings, fresh)
        _search(settings, fresh)
        _confirm(settings.search_directory, None, None)
        _publish(settings)


@app.command(epilog="Example: stepfront doctor configs/digits.yaml, or stepfront doctor runs/digits --repair")
@kept_at_uri("what")
def doctor(
    what: Annotated[
        Path | None,
        typer.Argument(metavar="[CONFIG | SEARCH]", help="check what this file names, or whether this search is whole"),
    ] = None,
    set_: Overrides = None,
    repair: Annotated[bool, typer.Option("--repair", help="make a search's tables and report anew")] = False,
) -> None:
    """Say what of Ray, storage, MLflow, device and data is usable, or whether a search is whole."""
    from search.config import load_settings
    from search.doctor import examine

    if what is not None and what.is_dir():
        from search import checkup

        if repair:
            settings = checkup.repair(what)
            _publish(settings)
        findings = checkup.examine_search(what)
    elif repair:
        raise InputError(f"--repair mends a search's directory, such as runs/digits; given {what or 'none'}")
    else:
        findings = examine(load_settings(what, set_ or []) if what else None)
    for finding in findings:
        out.print(f"{'ok  ' if finding.usable else 'FAIL'}  {finding.what:<10} {finding.says}", markup=False)
    if not all(finding.usable for finding in findings):
        raise typer.Exit(1)


@app.command(epilog="Example: stepfront ui runs/digits --port 5001")
@read_from_uri("search")
def ui(
    search: Search,
    port: Annotated[int, typer.Option(min=1, max=65535, help="of the MLflow server")] = 5000,
    host: Annotated[str, typer.Option(help="loopback unless told otherwise; there is no log-in")] = "127.0.0.1",
) -> None:
    """Open MLflow on the search: start the server that its runs need and print the link to its front."""
    from search.ui import open_ui

    open_ui(search, host, port, lambda text: out.print(text, markup=False))


@app.command(epilog="Example: stepfront register runs/digits --point knee; then mlflow models serve on it")
@read_from_uri("search")
def register(
    search: Search,
    point: Annotated[str, typer.Option(help="knee, best, cheapest, a trial's number, or a query: 'fid<=12'")] = "knee",
    name: Annotated[str | None, typer.Option(help="of the model; default: stepfront-NAME")] = None,
) -> None:
    """Register a front point as an MLflow model; the aliases knee, best and cheapest follow the front."""
    from search.register import register as run_register

    done = run_register(search, point, name)
    said = "is new" if done.new else "was there already"
    out.print(f"models:/{done.model}/{done.version} {said}: trial {done.point['trial']}, {done.point['plan']}")
    for alias, (before, now) in done.moved.items():
        out.print(f"models:/{done.model}@{alias} is version {now}" + (f", was {before}" if before else ""))


@app.command(epilog="Example: stepfront compare runs/digits runs/digits-2 --out compare.html")
@read_from_uri("searches")
def compare(
    searches: Annotated[list[Path], typer.Argument(metavar="SEARCH...", help="directories of searches or runs")],
    out_: Annotated[Path, typer.Option("--out", help="the page")] = Path("compare.html"),
) -> None:
    """Several searches in one report: their fronts, what they attain, and their plans side by side."""
    from dashboards.report import write_comparison
    from search.directory import find_search

    out.print(f"report: {write_comparison([find_search(path)[0] for path in searches], out_)}")


add_cluster(app)
add_models(app)


def _train(settings: RunSettings, fresh: bool) -> None:
    from dashboards.progress import TrainingProgress
    from search import run

    with TrainingProgress(out) as progress:
        card, worked = run.train(
            settings, fresh, lambda r: progress.update(r.step, r.total, r.losses), _stage(settings.name)
        )
    losses = card.made_with.get("held_out_losses", {})
    said = ", ".join(f"{float(width):g}: {loss:.4f}" for width, loss in losses.items())
    out.print(f"supernet {'trained' if worked else 'is there already'}: {settings.supernet_directory}")
    if said:
        out.print(f"held-out loss by width  {said}")


def _search(settings: RunSettings, fresh: bool) -> None:
    from dashboards.progress import SearchProgress
    from search import run

    with SearchProgress(out) as progress:
        view = LiveView(progress)
        run.search(settings, fresh, view, _stage(settings.name), command=" ".join(["stepfront", *sys.argv[1:]]))


def _confirm(search: Path, images: int | None, seeds: int | None) -> None:
    from search.confirm import confirm as run_confirm

    with _bar("confirming the front") as told:
        run_confirm(search, images, seeds, lambda done, total: told(done, total, "confirming the front"))


def _publish(settings: RunSettings) -> None:
    from dashboards.progress import front_table
    from search.directory import read_snapshot
    from search.publish import publish

    directory = settings.search_directory
    _stage(settings.name)("writing report and MLflow")
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


class LiveView:
    """The terminal's view of a running search."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress

    def update(self, ledger: Ledger, total: int, workers: int) -> None:
        from search.front import front_indices
        from search.sampler import GENOME

        complete = ledger.complete
        scores = ledger.scores(complete)
        best = []
        for i in front_indices(scores):
            result = ledger.result(complete[i])
            runs = complete[i].user_attrs[GENOME]
            best.append((result["gflops"], result["fid"], str(runs)))
        volumes = [float(v) for v in ledger.hypervolumes()]
        self._progress.update(ledger.finished, total, ledger.failed, best, volumes, workers, ledger.elapsed)


def _stage(name: str) -> Callable[[str], None]:
    return lambda text: out.print(f"{name}: {text}", style="dim")


@contextlib.contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar with remaining time; plain lines, one each tenth, where there is no terminal to draw on."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    said: dict[str, int] = {}
    with Progress(*columns, console=out, disable=not out.is_terminal) as progress:
        task = progress.add_task(what, total=None)

        def tell(done: int, total: int, now: str) -> None:
            progress.update(task, completed=done, total=total, description=now)
            tenth = 10 * done // max(1, total)
            if not out.is_terminal and tenth > said.get(now, -1):
                said[now] = tenth
                out.print(f"{now}: {done}/{total}")

        yield tell


def environment_for_offline_use() -> None:
    """No part of this program phones home."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


environment_for_offline_use()

if __name__ == "__main__":
    main()
