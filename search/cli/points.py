"""The verbs for what a search has found: its front, images, report, comparison, MLflow's page and models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from stepfront.errors import InputError
from stepfront.search.cli.terminal import Search, out

Point = Annotated[str, typer.Option(help="knee, best, cheapest, a trial's number, or a query: 'fid<=12'")]


def add_to(app: typer.Typer) -> None:
    """Adds the verbs to the command."""
    app.command(epilog="Example: stepfront front runs/digits --export front.csv")(front)
    app.command(epilog="Example: stepfront sample runs/digits --point knee --images 64 --label 3 --out threes.png")(
        sample
    )
    app.command(epilog="Example: stepfront report runs/digits")(report)
    app.command(epilog="Example: stepfront ui runs/digits --port 5001")(ui)
    app.command(epilog="Example: stepfront register runs/digits --point knee; then mlflow models serve on it")(register)
    app.command(epilog="Example: stepfront compare runs/digits runs/digits-2 --out compare.html")(compare)


def front(
    search: Search,
    export: Annotated[Path | None, typer.Option(help="write a .csv, .json or .parquet file instead")] = None,
) -> None:
    """Print the front, or export it."""
    from stepfront.dashboards.progress import front_table
    from stepfront.files import write_atomically, write_text
    from stepfront.search.records.run_directory import find_search
    from stepfront.search.storage.run_location import open_for_reading
    from stepfront.tables.parquet import write_table
    from stepfront.tables.search_tables import read_snapshot

    directory, _ = find_search(open_for_reading(search).local)
    snapshot = read_snapshot(directory)
    points = snapshot.front
    if export is None:
        out.print(front_table(points, snapshot.facts.get("full", {}).get("gflops")))
        return
    if export.suffix == ".parquet":
        write_table(points, export)
    elif export.suffix == ".csv":
        from stepfront.search.driver.publish import front_csv

        write_atomically(export, lambda path: front_csv(points).to_csv(path, index=False))
    elif export.suffix == ".json":
        write_text(export, json.dumps(json.loads(points.to_json(orient="records")), indent=1) + "\n")
    else:
        raise InputError(f"can't export to {export}; possible suffixes: .csv .json .parquet")
    out.print(f"{len(points)} points written to {export}")


def sample(
    search: Search,
    point: Point = "knee",
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

    from stepfront.files import write_atomically
    from stepfront.search.driver.publish import by_class, make_evaluator, sample_pixels
    from stepfront.search.problem.load import load_problem_of_search
    from stepfront.search.records.plan_rows import plan_of_row
    from stepfront.search.records.run_directory import find_search
    from stepfront.search.storage.run_location import open_for_reading
    from stepfront.tables.points import pick_point
    from stepfront.tables.search_tables import read_snapshot
    from stepfront.trainers.data.image_grid import save_grid

    directory, settings = find_search(open_for_reading(search).local)
    row = pick_point(read_snapshot(directory).front, point)
    suffix = "" if label is None else f"-label-{label}"
    grid = out_ or directory / "samples" / f"trial-{row['trial']}-seed-{seed}{suffix}.png"
    if grid.suffix != ".png":
        raise InputError(f"the grid is a .png file, given {grid}")
    evaluator = make_evaluator(load_problem_of_search(settings, directory), directory)
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


def report(search: Search) -> None:
    """Write the search's report: one HTML page that needs no network."""
    from stepfront.search.driver.publish import draw_images, draw_report
    from stepfront.search.problem.load import load_problem_of_search
    from stepfront.search.records.run_directory import find_search
    from stepfront.search.storage.run_location import open_for_reading

    directory, settings = find_search(open_for_reading(search).local)
    if not (directory / "images" / "index.json").exists():
        draw_images(load_problem_of_search(settings, directory), directory)
    out.print(f"report: {draw_report(directory)}")


def ui(
    search: Search,
    port: Annotated[int, typer.Option(min=1, max=65535, help="of the MLflow server")] = 5000,
    host: Annotated[str, typer.Option(help="loopback unless told otherwise; there is no log-in")] = "127.0.0.1",
) -> None:
    """Open MLflow on the search: start the server that its runs need and print the link to its front."""
    from stepfront.search.storage.run_location import open_for_reading
    from stepfront.search.tracking.server import open_ui

    open_ui(open_for_reading(search).local, host, port, lambda text: out.print(text, markup=False))


def register(
    search: Search,
    point: Point = "knee",
    name: Annotated[str | None, typer.Option(help="of the model; default: stepfront-NAME")] = None,
) -> None:
    """Register a front point as an MLflow model; the aliases knee, best and cheapest follow the front."""
    from stepfront.search.export.registry import register_point
    from stepfront.search.storage.run_location import open_for_reading

    done = register_point(open_for_reading(search).local, point, name)
    said = "is new" if done.new else "was there already"
    out.print(f"models:/{done.model}/{done.version} {said}: trial {done.point['trial']}, {done.point['plan']}")
    for alias, (before, now) in done.moved.items():
        out.print(f"models:/{done.model}@{alias} is version {now}" + (f", was {before}" if before else ""))


def compare(
    searches: Annotated[list[str], typer.Argument(metavar="SEARCH...", help="directories of searches or runs")],
    out_: Annotated[Path, typer.Option("--out", help="the page")] = Path("compare.html"),
) -> None:
    """Several searches in one report: their fronts, what they attain, and their plans side by side."""
    from stepfront.dashboards.report import write_comparison
    from stepfront.search.records.run_directory import find_search
    from stepfront.search.storage.run_location import open_for_reading

    directories = [find_search(open_for_reading(place).local)[0] for place in searches]
    out.print(f"report: {write_comparison(directories, out_)}")
