"""Define the verbs that train and search: quickstart, train, adapt, search, resume and extend."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from stepfront.errors import InputError
from stepfront.search.cli.steps import adapt_step, confirm_step, publish_step, search_step, train_step
from stepfront.search.cli.terminal import Config, Fresh, Output, Overrides, Search


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command(epilog="Example: stepfront quickstart --set budget.trials=40")(quickstart)
    app.command(
        epilog="Example: stepfront train configs/digits.yaml --from runs/digits --set name=further "
        "--set training.steps=500"
    )(train)
    app.command(epilog="Example: stepfront adapt runs/digits --set adapt.groups.count=2 --set adapt.merge=true")(adapt)
    app.command(
        epilog="Example: stepfront search configs/digits.yaml --set budget.trials=200 --set workers.count=2; "
        "stepfront search mine.yaml --from runs/digits --from runs/faces; stepfront search mine.yaml --from auto"
    )(search)
    app.command(epilog="Example: stepfront resume runs/digits")(resume)
    app.command(
        epilog="Example: stepfront extend runs/digits --trials 200; stepfront extend runs/digits --trials 60 "
        "--set sampler.steps=30 --set space.stages=15"
    )(extend)


def quickstart(set_: Overrides = None, fresh: Fresh = False) -> None:
    """Run all steps on scikit-learn's digits, in a few minutes.

    The steps are: train, search, confirm and report.
    """
    from stepfront.search.config import each_once, settings_from
    from stepfront.search.execution.ray_session import one_session
    from stepfront.search.presets import preset
    from stepfront.search.storage.run_location import local_settings

    output, given = Output(), settings_from(preset("digits"), each_once(set_ or []))
    with local_settings(given, trains=True) as (settings, _):
        train_step(settings, fresh, output)
    with local_settings(given) as (settings, location), one_session():
        search_step(settings, fresh, location, output)
        confirm_step(settings.search_directory, None, None, output)
        publish_step(settings, output)


def train(
    config: Config,
    set_: Overrides = None,
    fresh: Fresh = False,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="SUPERNET", help="start from the weights of another supernet")
    ] = None,
    plain: Annotated[
        float | None,
        typer.Option(metavar="WIDTH", help="train this width alone, for the network FLOPs of the supernet's training"),
    ] = None,
) -> None:
    """Train a supernet, or continue an interrupted training.

    With --plain, one width is trained as a network of its own, in a run called NAME-plain-WIDTH: what sharing weights
    has to be measured against.
    """
    from stepfront.search.config import load_settings
    from stepfront.search.driver.train import plain_run
    from stepfront.search.records.run_directory import find_supernet
    from stepfront.search.storage.run_location import local_settings, open_for_reading

    start = [f"training.start={find_supernet(open_for_reading(from_).local)}"] if from_ else []
    output, given = Output(), load_settings(config, [*(set_ or []), *start])
    if plain is not None:
        given = plain_run(given, plain, output.stage(given.name))
    with local_settings(given, trains=True) as (settings, _):
        train_step(settings, fresh, output)


def adapt(
    place: Annotated[
        str, typer.Argument(metavar="SUPERNET|CONFIG", help="run or folder of a trained supernet, or its settings file")
    ],
    set_: Overrides = None,
    fresh: Fresh = False,
) -> None:
    """Train a supernet further, with weights per group of times.

    The settings are in `adapt`.  The result is a supernet with weights per group in a run called NAME-groups-COUNT, or
    with adapt.merge an ordinary one in NAME-merged-COUNT.  An interrupted call is continued.
    """
    from stepfront.search.adaptation.adapt import adapted_settings, settings_of_supernet
    from stepfront.search.config import load_settings
    from stepfront.search.storage.run_location import local_settings

    output = Output()
    if place.endswith((".yaml", ".yml")):
        given = load_settings(Path(place), set_ or [])
    else:
        given = settings_of_supernet(place, set_ or [])
    with local_settings(adapted_settings(given), trains=True) as (settings, _):
        adapt_step(settings, given.supernet_place, fresh, output)


def search(
    config: Config,
    set_: Overrides = None,
    fresh: Fresh = False,
    from_: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="SEARCH",
            help="start from what an earlier search learnt, also on other data; may be repeated. auto: the search in "
            "the folder of runs or in MLflow (tracking.uri) whose space is most alike",
        ),
    ] = None,
) -> None:
    """Search the widths per step, or continue a search.

    The supernet of the settings must be trained.  An earlier search counts as far as its ranks hold on the new trials.
    """
    from stepfront.search.config import load_settings
    from stepfront.search.earlier.found_searches import auto_settings
    from stepfront.search.earlier.kept_tables import warm_settings
    from stepfront.search.records.settings_paths import AUTO
    from stepfront.search.storage.run_location import local_settings, open_for_reading

    output, given = Output(), load_settings(config, set_ or [])
    earlier = [open_for_reading(place).local for place in from_ or [] if place != AUTO]
    with local_settings(given) as (settings, location):
        settings = warm_settings(settings, earlier, fresh)
        if AUTO in (from_ or []):
            in_folder, stage = location.uri is None, output.stage(settings.name)
            settings, line = auto_settings(settings, fresh, in_folder, stage)
            output.message(line)
        search_step(settings, fresh, location, output)
        publish_step(settings, output)


def resume(search: Search) -> None:
    """Continue an interrupted search with its own settings.

    Of a finished search, what it lacks is made again.
    """
    from stepfront.search.records.run_directory import ending, resume_settings
    from stepfront.search.storage.run_location import open_for_writing

    with open_for_writing(search) as location:
        settings, output = resume_settings(location.local), Output()
        with contextlib.suppress(InputError):  # facts that are missing or damaged are written again
            if ending(settings.search_directory, search):
                output.stage(settings.name)("finished already; what it lacks is made again")
        search_step(settings, False, location, output)
        publish_step(settings, output)
        if line := ending(settings.search_directory, search):
            output.message(line)


def extend(
    search: Search,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="make the space larger: sampler.steps or a setting of space"),
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="number of additional trials")] = None,
    minutes: Annotated[float | None, typer.Option(min=1e-3, help="additional running time, in minutes")] = None,
    tflops: Annotated[float | None, typer.Option(min=1e-9, help="additional network FLOPs, in 1e12")] = None,
) -> None:
    """Continue a finished search with more budget.

    The study and the MLflow run stay the same.  With --set the space becomes larger: more widths or variants, more
    steps, finer stages.  All trials so far keep their scores and count in it.
    """
    from stepfront.search.extending.extended_settings import extended_settings
    from stepfront.search.storage.run_location import open_for_writing

    with open_for_writing(search) as location:
        settings, output = extended_settings(location.local, trials, minutes, tflops, set_ or []), Output()
        search_step(settings, False, location, output, extend=True)
        publish_step(settings, output)
