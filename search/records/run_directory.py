"""Find a search directory, and read the settings that a search continues or starts from."""

from __future__ import annotations

from pathlib import Path

from stepfront.addresses import is_uri, shown
from stepfront.checksums import COPY_STATE, changed_since_written
from stepfront.errors import InputError
from stepfront.search.config import RunSettings, load_settings
from stepfront.search.records.layout_version import check_format
from stepfront.search.records.settings_paths import follow_move, follow_move_or_copy, with_paths
from stepfront.search.storage.lock import is_in_use
from stepfront.tables.facts import read_facts
from stepfront.tables.schema import FACTS_FILE, SETTINGS_FILE
from stepfront.trainers.networks.card import CARD_FILE
from stepfront.trainers.validation import settings_json, validate

COSTS_FILE = "costs.json"

GROUPS_FOLDER = "groups"
"""The folder in a supernet's that holds the groups of a second stage."""


def anchored(settings: RunSettings) -> RunSettings:
    """Return the settings with every path made absolute, so that they mean the same from any folder."""
    fronts = {_anchored_front(name): count for name, count in settings.initial_plans.items()}
    given = settings.model_copy(update={"supernet": settings.supernet_place, "initial_plans": fronts})
    directory = str(Path(settings.directory).absolute())
    return with_paths(given, lambda path: str(Path(path).absolute())).model_copy(update={"directory": directory})


def _anchored_front(name: str) -> str:
    """`front:SEARCH` with the search's own directory, absolute."""
    path = Path(name.removeprefix("front:"))
    if not name.startswith("front:") or (path.is_absolute() and path.name == "search"):
        return name
    return f"front:{find_search(path)[0].absolute()}"


def _settings_at(directory: Path, checked: bool = True) -> RunSettings:
    """Return the settings of the search in `directory`, which may have been moved, with or without its supernet."""
    check_format(directory)
    if checked:
        _check_settings_file(directory / SETTINGS_FILE)
    settings = load_settings(directory / SETTINGS_FILE)
    place = directory.absolute().parent
    settings = _where_they_lie(settings, place)
    moved = {"directory": str(place.parent), "name": place.name, "supernet": settings.supernet_place}
    return validate(RunSettings, settings_json(settings) | moved)


def _where_they_lie(settings: RunSettings, place: Path) -> RunSettings:
    """Return the settings of the run in `place` with its paths as they are after a move or a copy of the run."""
    old = place if is_uri(settings.directory) else settings.run_directory.absolute()
    if old == place:
        return settings
    return with_paths(
        settings, lambda path: follow_move(path, old, place), lambda path: follow_move_or_copy(path, old, place)
    )


def _check_settings_file(path: Path) -> None:
    """Raise InputError where the settings of a search are others than it was begun with."""
    if changed_since_written(path):
        raise InputError(
            f"{path} was changed since the search wrote it, by damage or by hand; restore it, or, if the change is "
            f"meant, accept it: stepfront doctor {path.parent} --repair"
        )


def find_search(path: Path) -> tuple[Path, RunSettings]:
    """Return the search directory in `path`, which is itself or its run, and its settings.

    Raises InputError when there is no search, or another version of stepfront made it.
    """
    for directory in (path, path / "search"):
        if (directory / FACTS_FILE).exists() and (directory / SETTINGS_FILE).exists():
            return directory, _settings_at(directory)
    for directory in (path, path / "search"):
        if (directory / SETTINGS_FILE).exists() and directory.name == "search":
            raise InputError(
                f"the search in {path} has no results yet; wait for the driver that is at work"
                if is_in_use(directory)
                else f"the search in {path} was interrupted before its first table; {_remedy(directory.parent)}"
            )
    raise InputError(
        _instead_of_supernet(path)
        or f"no search in {path}; give a directory that `stepfront search` made, such as runs/digits"
    )


def _instead_of_supernet(path: Path) -> str:
    """Return what is to be done with a supernet that is given as a search; empty for anything else."""
    for supernet in (path, path / "supernet"):
        run = supernet.parent if supernet.name else supernet.absolute().parent
        if not (supernet / CARD_FILE).exists() or (run / COPY_STATE).exists():
            continue
        if (run / "search" / SETTINGS_FILE).exists():
            return f"{path} is a supernet, not a search; its run is {run}"
        if (supernet / SETTINGS_FILE).exists():
            settings = supernet / SETTINGS_FILE
            return f"the supernet in {path} has no search yet; begin one with: stepfront search {settings}"
    return ""


def has_supernet_alone(path: Path) -> bool:
    """Return whether a run, or its supernet's folder, has a supernet with settings and no search that was begun."""
    for supernet in (path, path / "supernet"):
        if (supernet / CARD_FILE).exists() and (supernet / SETTINGS_FILE).exists():
            return not (supernet.absolute().parent / "search" / SETTINGS_FILE).exists()
    return False


def ending(search: Path, place: str) -> str:
    """Return one line for a finished search: its trials, and what adds some; empty for one that is not finished."""
    facts = read_facts(search)
    if not facts.get("finished"):
        return ""
    count = facts.get("evaluations", 0) + facts.get("failed", 0)
    return f"finished with {count} trials; for more: stepfront extend {shown(place)} --trials N"


def interruption(search: Path, place: str) -> str:
    """Return one line for a search in which no driver works: that it was interrupted, and what continues it.

    Empty where it came to its end.  `place` is how the user names it.
    """
    facts = read_facts(search)
    if facts.get("finished"):
        return ""
    count = facts.get("evaluations", 0) + facts.get("failed", 0)
    return f"this search was interrupted after {count} trials; {_remedy(place)}"


def _remedy(place: Path | str) -> str:
    return f"continue it with: stepfront resume {shown(str(place))}"


def find_supernet(path: Path) -> Path:
    """Return the supernet directory in `path`, which is itself or its run; InputError where there is none."""
    for directory in (path, path / "supernet"):
        if (directory / CARD_FILE).exists():
            return directory.absolute()
    raise InputError(f"no supernet in {path}; give a directory that `stepfront train` made, such as runs/digits")


def written_settings(search: Path) -> RunSettings | None:
    """Return a search's settings as they were written: after a move or a copy by hand, with the earlier paths.

    None where they are missing or can't be read.
    """
    try:
        return load_settings(search / SETTINGS_FILE)
    except InputError:
        return None


def tracking_of_supernet(directory: Path) -> str | None:
    """Return the address of MLflow in the settings of a supernet, which may have been moved or copied."""
    if not (directory / SETTINGS_FILE).is_file():
        return None
    settings = load_settings(directory / SETTINGS_FILE)
    if settings.supernet_place == settings.model_copy(update={"supernet": None}).supernet_place:  # it lies in its run
        settings = _where_they_lie(settings, directory.absolute().parent)
    return settings.tracking.uri


def resume_settings(path: Path, checked: bool = True) -> RunSettings:
    """Return the settings of the search begun in `path`, even if it was interrupted before its first table.

    Unless `checked`, settings that were changed since they were written are taken as they are.  Raises InputError when
    no search was begun there, or another version of stepfront made it.
    """
    for directory in (path, path / "search"):
        if (directory / SETTINGS_FILE).exists() and directory.name != "supernet":
            return _settings_at(directory, checked)
    raise InputError(
        _instead_of_supernet(path)
        or f"no search was begun in {path}; give a directory that `stepfront search` made, such as runs/digits"
    )
