"""Define the verbs on files and folders: init, list and delete."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepfront.errors import InputError
from stepfront.search.cli.terminal import AsJson, Output
from stepfront.search.presets import preset_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stepfront.search.driver.delete import Part

Place = Annotated[
    str, typer.Argument(metavar="RUN", help="folder of a run, or of its search or supernet, such as runs/digits")
]


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command(epilog="Example: stepfront init mine.yaml --preset fashion-mnist")(init)
    app.command("list", epilog="Example: stepfront list runs --json")(list_)
    app.command(epilog="Example: stepfront delete runs/digits/search --mlflow")(delete)


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="settings file to write, such as mine.yaml")],
    preset: Annotated[
        str, typer.Option(metavar="NAME", help=f"where values come from: {', '.join(preset_names())}")
    ] = "digits",
) -> None:
    """Write a settings file with a comment on every setting.

    The run is named after the file.  An existing file is not overwritten.
    """
    from stepfront.search.commented_settings import commented_settings
    from stepfront.search.presets import preset_text

    text = preset_text(preset)
    if file.suffix not in (".yaml", ".yml"):
        raise InputError(f"{file} is not a .yaml file; give a name that ends in .yaml")
    name = file.stem if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", file.stem) else "mine"
    try:
        with open(file, "x", encoding="utf-8") as new:
            new.write(commented_settings(text, name))
    except FileExistsError:
        raise InputError(f"{file} exists already; give another name, or delete it first") from None
    output = Output()
    output.message(f"{file} written: the run {name}, with the values of the preset {preset}")
    output.message(f"check it with   stepfront doctor {file}")
    output.message(f"then            stepfront train {file}; stepfront search {file}")


def list_(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="folder that holds runs, or one run")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List the runs of a folder, with state, front, saving and size."""
    from dataclasses import asdict

    from stepfront.search.cli.tables.runs import run_table
    from stepfront.search.records.run_list import list_runs

    output, found = Output(as_json), list_runs(folder)
    if as_json:
        output.json([asdict(run) for run in found])
        return
    output.message(run_table(found) if found else f"there is no run in {folder}")
    for run in found:
        if run.problem:
            output.message(f"{run.name}: {run.problem}")
        elif run.state == "interrupted":
            output.message(f"{run.name} was interrupted; continue it with: stepfront resume {run.directory}")


def delete(
    place: Place,
    yes: Annotated[bool, typer.Option("--yes", help="delete without asking")] = False,
    mlflow: Annotated[bool, typer.Option("--mlflow", help="also delete its runs from MLflow")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a run, or its search or supernet alone.

    It prints what is freed, and asks.  A run that a driver works in, and a folder that stepfront did not make, are
    refused.  Nothing that lies beside search and supernet is deleted.
    """
    from stepfront.search.cli.tables.runs import size_text
    from stepfront.search.driver.delete import delete_parts, find_parts

    output, parts = Output(as_json), find_parts(place)
    total = sum(part.bytes for part in parts)
    _show(output, parts)
    if not yes:
        if not sys.stdin.isatty():
            raise InputError(f"nothing was deleted: without a terminal to ask on, confirm with --yes ({place})")
        if not typer.confirm("Delete it for good?", err=as_json):
            output.message("nothing was deleted")
            return
    runs = delete_parts(parts, mlflow)
    output.message(f"freed  {size_text(total)}" + (f"; {runs} runs of MLflow marked as deleted" if mlflow else ""))
    if as_json:
        deleted = [str(part.directory) for part in parts]
        output.json({"deleted": deleted, "bytes": total, "mlflow_runs": runs})


def _show(output: Output, parts: Sequence[Part]) -> None:
    """Print what is to be deleted, and what will lack it."""
    from stepfront.addresses import shown
    from stepfront.search.cli.tables.runs import size_text

    for part in parts:
        output.message(f"{part.kind:<9} {part.directory}  {size_text(part.bytes)}", indent=10)
        if part.study:
            stays = f"  stays there: {part.kept}" if part.kept else ""
            output.message(f"study     in {shown(part.study)}{stays}", indent=10)
        if part.runs_of:
            output.message(f"note      its runs in MLflow are those of {part.runs_of}, and stay", indent=10)
    search = parts[-1].directory.absolute().parent / "search"
    if [part.kind for part in parts] == ["supernet"] and search.is_dir():
        output.message(f"note      the search in {search} needs this supernet to continue", indent=10)
