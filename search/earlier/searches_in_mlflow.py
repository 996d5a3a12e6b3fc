"""Find earlier searches in the tracking store, and copy those that may fit into the folder of local copies."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from urllib.parse import quote

from stepfront.addresses import shown
from stepfront.errors import InputError
from stepfront.search.config import RunSettings, load_settings, save_settings
from stepfront.search.mlflow_runs.stored_searches import StoredSearch, StoredSearches, holds_a_copy
from stepfront.search.mlflow_runs.written import WrittenSearch
from stepfront.search.storage.lock import directory_lock
from stepfront.search.storage.run_location import copy_folder
from stepfront.tables.schema import SETTINGS_FILE
from stepfront.trainers.validation import settings_json, validate

MOST_COPIED = 5
"""Searches whose files are copied and looked at: the most alike ones by what the store says of them."""


def copies_from_mlflow(
    settings: RunSettings, known: Collection[str], stage: Callable[[str], None]
) -> tuple[list[Path], str]:
    """Return the directories of local copies of the most alike searches in the store, and why there are none or few.

    The second is empty where the store answered and all could be copied.  Searches whose id is `known` are left out.
    """
    uri = settings.tracking.uri
    if uri is None:
        return [], ""
    store, found, failed = StoredSearches(uri), list[Path](), dict[str, str]()
    stage(f"looking for earlier searches in MLflow at {shown(uri)}, {store.seconds_left:.0f} seconds at most")
    facts = {
        "encoding": settings.space.encoding,
        "skip": settings.space.skip,
        "widths": settings.network.widths,
        "steps": settings.sampler.steps,
        "solver": settings.sampler.solver,
    }
    alike = store.alike(facts, known)[:MOST_COPIED]
    for number, search in enumerate(alike, 1):
        stage(f"reading {search.name}, {number} of {len(alike)} searches in MLflow")
        try:
            place = _local_copy(store, search)
        except (InputError, OSError) as error:
            failed[search.name] = str(error)
        else:
            found += [place] if place is not None else []
    reasons = [f"MLflow at {shown(uri)}: can't copy {', '.join(failed)}: {[*failed.values()][-1]}"] if failed else []
    return found, "; ".join([*reasons, *filter(None, [store.problem])])


def _local_copy(store: StoredSearches, search: StoredSearch) -> Path | None:
    """Return the directory of the local copy of a search, made where there is none; None where it can't be used.

    It appears complete and is not changed afterwards, so that it can be read without a lock: a search that has ended
    again has another one.  Raises InputError or OSError where it can't be made.
    """
    # The name of a search is that of the folder above it.
    name = search.name if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", search.name) else search.run_id
    run = copy_folder(f"{quote(store.uri, safe='')}/{search.run_id}/{search.ended}/{name}", "mlflow")
    place = run / "search"
    with directory_lock(run, wait_seconds=store.seconds_left):
        if holds_a_copy(place):
            return place
        # A thread that was given up may still write here.
        with tempfile.TemporaryDirectory(prefix=".part-", dir=run, ignore_cleanup_errors=True) as folder:
            part = Path(folder) / "search"
            if not (store.copy(search, part) and _moved(part, place, search, store.uri)):
                return None
            shutil.rmtree(place, ignore_errors=True)  # of a copy that lacks files
            part.rename(place)
    return place


def _moved(part: Path, place: Path, search: StoredSearch, uri: str) -> bool:
    """Write where a copy will lie into its settings, and its run into its note; return whether it can be read at all.

    The store is called as this search calls it: another machine may reach it by another address.
    """
    try:
        settings = load_settings(part / SETTINGS_FILE)
        here = {"directory": str(place.parent.parent), "name": place.parent.name}
        tracking = settings_json(settings.tracking) | {"uri": uri}
        changed = settings_json(settings) | here | {"tracking": tracking}
        save_settings(validate(RunSettings, changed), part / SETTINGS_FILE)
    except InputError:
        return False
    WrittenSearch(experiment_id=search.experiment_id, run_id=search.run_id).save(part)
    return True
