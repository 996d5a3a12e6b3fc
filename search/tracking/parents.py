"""Find the earlier searches whose fronts gave a search its initial plans, and their MLflow runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepfront.errors import InputError
from stepfront.search.mlflow_runs.client import tracking_uri
from stepfront.search.mlflow_runs.copies import read_own_note
from stepfront.search.mlflow_runs.written import WrittenSearch
from stepfront.search.records.run_directory import find_search
from stepfront.tables.facts import read_facts, search_id_of


def parent_searches(facts: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return name, search_id, uri, experiment_id and run_id of each parent search that still exists.

    The ids of a search that is not in MLflow are empty, and so is the uri where tracking is disabled.
    """
    parents = []
    for path in facts.get("parent_searches") or []:
        try:
            directory, settings = find_search(Path(path))
            search_id = search_id_of(read_facts(directory))
        except (InputError, KeyError):
            continue
        written = read_own_note(directory, WrittenSearch, settings.tracking.uri)
        parents.append(
            {"name": settings.name, "search_id": search_id, "uri": tracking_uri(settings.tracking.uri) or ""}
            | {"experiment_id": written.experiment_id, "run_id": written.run_id}
        )
    return parents
