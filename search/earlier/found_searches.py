"""Find earlier searches that a new one can start from (`--from auto`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stepfront.addresses import is_uri
from stepfront.errors import InputError
from stepfront.search.algorithm.sampler_genes import make_plan_encoding
from stepfront.search.algorithm.surrogate import LEAST_TRIALS
from stepfront.search.config import RunSettings
from stepfront.search.earlier.kept_tables import check_usable, warm_settings
from stepfront.search.earlier.usable_plans import scored_trials, usable_plans
from stepfront.search.records.run_directory import find_search, written_settings
from stepfront.search.records.settings_paths import FRONT_OF
from stepfront.search.storage.lock import is_in_use
from stepfront.tables.facts import read_facts
from stepfront.tables.schema import FACTS_FILE
from stepfront.trainers.validation import settings_json, validate

AUTO = "auto"
"""What `--from` is given to find earlier searches."""

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


def auto_settings(settings: RunSettings, fresh: bool = False) -> tuple[RunSettings, str]:
    """Return the settings that start from the searches found, and one line that names them.

    A search that was begun keeps those that it began with, unless it starts over.
    """
    if not fresh and (begun := written_settings(settings.search_directory)) is not None:
        kept = {name: count for name, count in begun.initial_plans.items() if name.startswith(FRONT_OF)}
        changed = {"initial_plans": kept | settings.initial_plans}
        names = ", ".join(Path(name.removeprefix(FRONT_OF)).parent.name for name in kept) or "none"
        return validate(RunSettings, settings_json(settings) | changed), f"continues with the earlier searches: {names}"
    folders = auto_folders(settings)
    found = find_earlier(settings, folders)
    if not found:
        return settings, f"no earlier search in {folders[0]} that this one can start from; it starts without one"
    names = ", ".join(f"{one.name} ({one.trials} trials)" for one in found)
    return warm_settings(settings, [one.directory for one in found]), f"starts from {names}, found in {folders[0]}"


def find_earlier(settings: RunSettings, folders: list[Path]) -> list[FoundSearch]:
    """Return the searches in `folders` that these settings can start from: the most alike first, then the newest.

    Damaged and running searches, those with too few usable trials and this search itself are left out.
    """
    found = {}
    for folder in folders:
        for facts in sorted(folder.glob(f"*/search/{FACTS_FILE}")) if folder.is_dir() else []:
            if (one := _usable(facts.parent, settings)) is not None:
                found[one.directory] = one
    order = sorted(found.values(), key=lambda one: (one.alike, one.created), reverse=True)
    return order[:MOST_FOUND]


def auto_folders(settings: RunSettings) -> list[Path]:
    """Return the folders in which `--from auto` looks: that of this run.  Raises InputError where runs are at a URI."""
    if is_uri(settings.directory):
        raise InputError(f"--from auto looks in a local folder, and directory is {settings.directory}; name the search")
    return [Path(settings.directory)]


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
    """Return what makes the plans of two searches alike: encoding, skips, widths, steps, grid and solver."""
    return {
        "encoding": settings.space.encoding,
        "skip": settings.space.skip,
        "widths": settings.network.widths,
        "steps": settings.sampler.steps,
        "grid": settings.sampler.grid,
        "solver": settings.sampler.solver,
        "objectives": settings.evaluation.objectives,
    }
