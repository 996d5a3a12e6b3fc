"""Find a search directory, and read the settings that a search continues or starts from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from stepfront.addresses import is_uri
from stepfront.errors import InputError
from stepfront.search.config import RunSettings, load_settings
from stepfront.search.records.layout_version import check_format
from stepfront.tables.parquet import read_table, write_table
from stepfront.tables.schema import FACTS_FILE, FRONT, SETTINGS_FILE, TRIALS
from stepfront.trainers.config import FeatureSettings, settings_json, validate
from stepfront.trainers.networks.card import CARD_FILE

COSTS_FILE = "costs.json"

Features = TypeVar("Features", bound=FeatureSettings)


def anchored(settings: RunSettings) -> RunSettings:
    """Return the settings with every path made absolute, so that they mean the same from any folder."""

    def absolute(path: str | None) -> str | None:
        return None if path is None else str(Path(path).absolute())

    def absolute_file(url: str | None) -> str | None:
        scheme = "sqlite:///"
        return f"{scheme}{absolute(url.removeprefix(scheme))}" if url and url.startswith(scheme) else url

    def anchored_features(features: Features) -> Features:
        paths = {"path": absolute(features.path), "reference": absolute(features.reference)}
        return features.model_copy(update=paths)

    tracking = settings.tracking
    return settings.model_copy(
        update={
            "directory": absolute(settings.directory),
            "supernet": settings.supernet if is_uri(settings.supernet) else absolute(settings.supernet_place),
            "data": settings.data.model_copy(
                update={"path": absolute(settings.data.path), "cache": absolute(settings.data.cache)}
            ),
            "features": anchored_features(settings.features),
            "confirm": settings.confirm.model_copy(update={"features": anchored_features(settings.confirm.features)}),
            "initial_plans": {_anchored_front(name): count for name, count in settings.initial_plans.items()},
            "storage": absolute_file(settings.storage),
            "tracking": tracking.model_copy(update={"uri": absolute_file(tracking.uri)}),
        }
    )


def _anchored_front(name: str) -> str:
    """`front:SEARCH` with the search's own directory, absolute."""
    path = Path(name.removeprefix("front:"))
    if not name.startswith("front:") or (path.is_absolute() and path.name == "search"):
        return name
    return f"front:{find_search(path)[0].absolute()}"


def _settings_at(directory: Path) -> RunSettings:
    """Return the settings of the search in `directory`, which may have been moved, with or without its supernet."""
    check_format(directory)
    settings = load_settings(directory / SETTINGS_FILE)
    place = directory.absolute().parent
    moved = {"directory": str(place.parent), "name": place.name}
    beside = settings.run_directory / "supernet" == Path(settings.supernet_place) and (place / "supernet").exists()
    moved["supernet"] = str(place / "supernet") if beside else settings.supernet_place
    return validate(RunSettings, settings_json(settings) | moved)


def find_search(path: Path) -> tuple[Path, RunSettings]:
    """Return the search directory in `path`, which is itself or its run, and its settings.

    Raises InputError when there is no search, or another version of stepfront made it.
    """
    for directory in (path, path / "search"):
        if (directory / FACTS_FILE).exists() and (directory / SETTINGS_FILE).exists():
            return directory, _settings_at(directory)
    raise InputError(f"no search in {path}; give a directory that `stepfront search` made, such as runs/digits")


def find_supernet(path: Path) -> Path:
    """Return the supernet directory in `path`, which is itself or its run; InputError where there is none."""
    for directory in (path, path / "supernet"):
        if (directory / CARD_FILE).exists():
            return directory.absolute()
    raise InputError(f"no supernet in {path}; give a directory that `stepfront train` made, such as runs/digits")


FRONT_PLANS = 16
"""Number of plans that `--from` takes from an earlier front."""


def warm_settings(settings: RunSettings, searches: Sequence[Path]) -> RunSettings:
    """Return the settings with the fronts of earlier searches among the initial plans."""
    fronts = {f"front:{find_search(path)[0].absolute()}": FRONT_PLANS for path in searches}
    return validate(RunSettings, settings_json(settings) | {"initial_plans": fronts | settings.initial_plans})


def keep_earlier(settings: RunSettings, directory: Path) -> dict[str, Path]:
    """Copy front and trials of each search that this one starts from into its own directory, once; return where.

    The search can then be resumed with the same initial plans and the same model when those searches have moved,
    continued or been deleted.
    """
    kept = {}
    for name in settings.initial_plans:
        if not name.startswith("front:"):
            continue
        place = directory / "earlier" / hashlib.sha256(name.encode()).hexdigest()[:12]
        for table in (TRIALS, FRONT):
            if not (place / table).exists():
                write_table(read_table(Path(name.removeprefix("front:")) / table), place / table)
        kept[name] = place
    return kept


def resume_settings(path: Path) -> RunSettings:
    """Return the settings of the search begun in `path`, even if it was interrupted before its first table.

    Raises InputError when no search was begun there, or another version of stepfront made it.
    """
    for directory in (path, path / "search"):
        if (directory / SETTINGS_FILE).exists() and directory.name != "supernet":
            return _settings_at(directory)
    raise InputError(
        f"no search was begun in {path}; give a directory that `stepfront search` made, such as runs/digits"
    )
