"""Find earlier searches that a new one can start from (`--from auto`)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stepfront.addresses import shown
from stepfront.errors import InputError
from stepfront.search.algorithm.surrogate import LEAST_TRIALS
from stepfront.search.config import RunSettings
from stepfront.search.earlier.kept_tables import begun_settings, check_usable, continuing, warm_settings
from stepfront.search.earlier.searches_in_mlflow import copies_from_mlflow
from stepfront.search.earlier.usable_plans import scored_trials, usable_plans
from stepfront.search.genomes.sampler_genes import make_plan_encoding
from stepfront.search.records.run_directory import find_search, written_settings
from stepfront.search.records.settings_paths import FRONT_OF
from stepfront.search.storage.lock import is_in_use
from stepfront.tables.facts import read_facts, search_id_of
from stepfront.tables.schema import FACTS_FILE
from stepfront.trainers.config import BEST, LEARNT

MOST_FOUND = 1
"""Most earlier searches that `--from auto` takes.

Few trials hardly tell a prior that helps from an unrelated one, so more of them would lead by chance.
"""


@dataclass(frozen=True)
class FoundSearch:
    """An earlier search, and how alike its space is: the number of shared settings of it."""

    directory: Path
    name: str
    alike: int
    trials: int
    created: str


def auto_settings(
    settings: RunSettings,
    fresh: bool = False,
    in_folder: bool = True,
    stage: Callable[[str], None] = lambda text: None,
) -> tuple[RunSettings, str]:
    """Return the settings that start from the searches found, and one line that names them.

    They are looked for in the folder of runs, unless that is a copy of a URI (`in_folder`), and in the tracking store.
    One that does not answer is named in the line, and left out; `stage` is called with what is read of it.  A search
    that was begun keeps those that it began with, unless it starts over.  Raises InputError where there is no place to
    look in.
    """
    if not fresh and written_settings(settings.search_directory) is not None:
        settings = begun_settings(settings)
        return settings, continuing(settings)
    folder, uri = Path(settings.directory) if in_folder else None, settings.tracking.uri
    if folder is None and uri is None:
        raise InputError(
            "--from auto looks in a local folder of runs and in MLflow; directory is a URI and tracking.uri is null: "
            "name the search"
        )
    known = _ids([settings.search_directory, *_named(settings), *_searches_in(folder)])
    copies, problem = copies_from_mlflow(settings, known, stage)
    found = find_earlier(settings, folder, copies)
    in_mlflow = f"MLflow at {shown(uri)}" if uri else ""
    before = f"{problem}; " if problem else ""
    if not found:
        places = " or ".join(filter(None, (str(folder or ""), "" if problem else in_mlflow)))
        where = f" in {places}" if places else ""
        return settings, f"{before}no earlier search{where} that this one can start from; it starts without one"
    names = ", ".join(
        f"{one.name} ({one.trials} trials), found in {in_mlflow if one.directory in copies else folder}"
        for one in found
    )
    return warm_settings(settings, [one.directory for one in found]), f"{before}starts from {names}"


def find_earlier(settings: RunSettings, folder: Path | None, copies: Sequence[Path] = ()) -> list[FoundSearch]:
    """Return the searches that these settings can start from: the most alike first, then the newest.

    They are those in `folder`, and the `copies` of others.  Damaged and running searches, those with too few usable
    trials, this search itself and those that it starts from already are left out.
    """
    named = _ids(_named(settings))
    places = [place for place in (*_searches_in(folder), *copies) if not named & _ids([place])]
    usable = (_usable(directory, settings) for directory in places)
    found = {one.directory: one for one in usable if one is not None}
    order = sorted(found.values(), key=lambda one: (one.alike, one.created), reverse=True)
    return order[:MOST_FOUND]


def _searches_in(folder: Path | None) -> list[Path]:
    found = folder.glob(f"*/search/{FACTS_FILE}") if folder is not None and folder.is_dir() else ()
    return sorted(facts.parent for facts in found)


def _named(settings: RunSettings) -> list[Path]:
    """Return the directories of the searches that the settings start from already."""
    return [Path(name.removeprefix(FRONT_OF)) for name in settings.initial_plans if name.startswith(FRONT_OF)]


def _ids(directories: Iterable[Path]) -> set[str]:
    """Return the ids of searches; those that can't be read have none."""
    found = set()
    for directory in directories:
        with contextlib.suppress(InputError):
            found.add(search_id_of(read_facts(directory)))
    return found


def _usable(directory: Path, settings: RunSettings) -> FoundSearch | None:
    if directory.absolute() == settings.search_directory.absolute() or is_in_use(directory):
        return None
    try:
        facts, theirs = read_facts(directory), find_search(directory)[1]
        check_usable(directory, settings)
        trials = scored_trials(directory)
    except InputError:
        return None
    # The order and the size of widths do not decide which plans can be used.
    choices = settings.space.listed or settings.network.widths
    if len(usable_plans(trials, make_plan_encoding(settings.space, settings.sampler, choices))) < LEAST_TRIALS:
        return None
    alike = sum(space_of(theirs)[key] == value for key, value in space_of(settings).items())
    return FoundSearch(directory.absolute(), theirs.name, alike, len(trials), str(facts.get("created", "")))


def space_of(settings: RunSettings) -> dict[str, object]:
    """Return what makes the plans of two searches alike: encoding, skips, widths, steps, grid and solver.

    Of a solver that is found or learnt the grid comes with it, so the setting says nothing.
    """
    sampler = settings.sampler
    return {
        "encoding": settings.space.encoding,
        "skip": settings.space.skip,
        "widths": settings.network.widths,
        "steps": sampler.steps,
        "grid": None if sampler.solver in (BEST, LEARNT) or sampler.times != "grid" else sampler.grid,
        "solver": sampler.solver,
        "objectives": settings.evaluation.objectives,
    }
