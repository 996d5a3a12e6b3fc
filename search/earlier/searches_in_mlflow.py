"""Find earlier searches in the tracking store, and copy those that may fit into the folder of local copies."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from stepfront.errors import InputError
from stepfront.search.config import RunSettings, load_settings, save_settings
from stepfront.search.mlflow_runs.stored_searches import StoredSearch, StoredSearches
from stepfront.search.mlflow_runs.written import WrittenSearch
from stepfront.search.storage.run_location import copy_folder
from stepfront.tables.schema import SETTINGS_FILE
from stepfront.trainers.validation import settings_json, validate

MOST_COPIED = 5
"""Searches whose files are copied and looked at: the most alike ones by what the store says of them."""


def copies_from_mlflow(settings: RunSettings, known: Collection[str]) -> tuple[list[Path], str]:
    """Return the directories of local copies of the most alike searches in the store, and why there are none or few.

    The second is empty where the store answered.  Searches whose id is `known` are left out.
    """
    uri = settings.tracking.uri
    if uri is None:
        return [], ""
    store, found = StoredSearches(uri), []
    facts = {
        "encoding": settings.space.encoding,
        "skip": settings.space.skip,
        "widths": settings.network.widths,
        "steps": settings.sampler.steps,
        "solver": settings.sampler.solver,
    }
    for search in store.alike(facts, known)[:MOST_COPIED]:
        place = _place(search)
        if store.copy(search, place) and _made_a_copy(place, search, settings):
            found.append(place)
    return found, store.problem


def _place(search: StoredSearch) -> Path:
    """Return the directory of the copy: the name of a search is that of the folder above it."""
    name = search.name if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", search.name) else search.run_id
    return copy_folder(f"{search.run_id}/{name}", "mlflow") / "search"


def _made_a_copy(place: Path, search: StoredSearch, ours: RunSettings) -> bool:
    """Write where the copy lies into its settings, and its run into its note; return whether it can be read at all.

    The store is called as this search calls it: another machine may reach it by another address.
    """
    try:
        settings = load_settings(place / SETTINGS_FILE)
        here = {"directory": str(place.parent.parent), "name": place.parent.name}
        tracking = settings_json(settings.tracking) | {"uri": ours.tracking.uri}
        changed = settings_json(settings) | here | {"tracking": tracking}
        save_settings(validate(RunSettings, changed), place / SETTINGS_FILE)
    except InputError:
        return False
    WrittenSearch(experiment_id=search.experiment_id, run_id=search.run_id).save(place)
    return True
