"""Define the verbs for the points of a front: front, sample and register."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepfront.errors import InputError
from stepfront.search.cli.terminal import AsJson, Output, Point, Search, json_rows

if TYPE_CHECKING:
    import pandas as pd


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command(epilog="Example: stepfront front runs/digits --export front.csv")(front)
    app.command(epilog="Example: stepfront sample runs/digits --point knee --images 64 --out knee.png")(sample)
    app.command(epilog="Example: stepfront register runs/digits --point knee; then mlflow models serve on it")(register)


def front(
    search: Search,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write a .csv, .json or .parquet file instead")
    ] = None,
    wide: Annotated[bool, typer.Option("--wide", help="print all columns and complete plans at any width")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the Pareto front, or export it.

    Columns that do not fit are left out, and plans are shortened.  Points that left the front when they were
    confirmed are marked (left).
    """
    from stepfront.dashboards.claim import unconfirmed_sentence
    from stepfront.dashboards.earlier import earlier_sentences
    from stepfront.dashboards.terminal.front_table import front_listing
    from stepfront.search.api import open_search
    from stepfront.tables.search_tables import own_score_names

    output, found = Output(as_json), open_search(search)
    points = found.front()
    if export is not None:
        _export_front(points, export)
        output.message(f"{len(points)} points written to {export}")
    elif not as_json:
        full = found.facts.get("full", {}).get("gflops")
        output.message(front_listing(points, full, own_score_names(found.facts), wide))
        later = unconfirmed_sentence(points, str(search))
        for sentence in filter(None, [*earlier_sentences(found.facts), later]):
            output.message(sentence)
    output.interruption(found.directory, search)
    if as_json:
        output.json(json_rows(points))


def _export_front(points: pd.DataFrame, file: Path) -> None:
    from stepfront.files import write_atomically, write_text
    from stepfront.tables.parquet import write_table

    if file.suffix == ".parquet":
        write_table(points, file)
    elif file.suffix == ".csv":
        from stepfront.search.driver.publish import front_csv

        write_atomically(file, lambda path: front_csv(points).to_csv(path, index=False))
    elif file.suffix == ".json":
        write_text(file, json.dumps(json_rows(points), indent=1) + "\n")
    else:
        raise InputError(f"cannot export to {file}; possible suffixes: .csv .json .parquet")


def sample(
    search: Search,
    point: Point = "knee",
    images: Annotated[int, typer.Option(min=1, help="number of images")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="noise seed")] = 0,
    label: Annotated[
        int | None, typer.Option(help="class of all images (default: drawn as often as in the training data)")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="image grid (default: samples/trial-N-seed-S.png in the directory of the search)",
        ),
    ] = None,
) -> None:
    """Sample images of a front point.

    Writes a grid as .png, by class where the data has classes, and all images as .npz beside it.
    """
    from stepfront.search.api import open_search
    from stepfront.search.driver.publish import by_class
    from stepfront.trainers.data.image_grid import save_grid

    found = open_search(search)
    row = found.point(point)
    suffix = "" if label is None else f"-label-{label}"
    grid = out or found.directory / "samples" / f"trial-{row['trial']}-seed-{seed}{suffix}.png"
    if grid.suffix != ".png":
        raise InputError(f"--out {grid} is not a .png file; give a name that ends in .png")
    pixels, labels = found.labelled_sample(point, images=images, seed=seed, label=label)
    save_grid(by_class(pixels, labels), grid, recorded=False)  # users delete samples as they like
    arrays = {"images": pixels.transpose(0, 2, 3, 1)} | ({} if labels is None else {"labels": labels})
    _write_npz(grid.with_suffix(".npz"), arrays | {"plan": row["plan"], "noise_seed": seed})
    output = Output()
    output.message(f"trial {row['trial']}: {row['plan']}, {row['gflops']:.4g} GFLOPs, FID {row['fid']:.4g}")
    output.message(f"{images} images in {grid} and {grid.with_suffix('.npz')}")


def _write_npz(file: Path, arrays: dict[str, Any]) -> None:
    import numpy as np

    from stepfront.files import write_atomically

    def write(path: Path) -> None:
        with open(path, "wb") as stream:
            np.savez_compressed(stream, **arrays)

    write_atomically(file, write, recorded=False)


def register(
    search: Search,
    point: Point = "knee",
    name: Annotated[str | None, typer.Option(help="name of the model (default: stepfront-NAME)")] = None,
    as_json: AsJson = False,
) -> None:
    """Register a front point as an MLflow model.

    The aliases knee, best and cheapest follow the front.
    """
    from stepfront.search.export.registry import register_point
    from stepfront.search.storage.run_location import open_for_reading

    output = Output(as_json)
    done = register_point(open_for_reading(search).local, point, name)
    state = "is new" if done.new else "exists already"
    output.message(f"models:/{done.model}/{done.version} {state}: trial {done.point['trial']}, {done.point['plan']}")
    for run_id in done.refused:
        output.message(f"the run {run_id} does not show it: no permission to write to it; its owner can register too")
    for alias, (before, now) in done.moved.items():
        output.message(f"models:/{done.model}@{alias} is version {now}" + (f", was {before}" if before else ""))
    if as_json:
        made = {"model": done.model, "version": done.version, "new": done.new, "trial": int(done.point["trial"])}
        output.json(
            made | {"plan": done.point["plan"], "moved": {alias: now for alias, (_, now) in done.moved.items()}}
        )
