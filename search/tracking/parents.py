"""What a search began from: its facts in; the earlier searches that are still there, and their MLflow runs, out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepfront.errors import InputError
from stepfront.files import read_json
from stepfront.search.records.run_directory import FACTS_FILE, find_search
from stepfront.search.tracking.mirror import read_state, tracking_uri


def parent_searches(facts: Mapping[str, Any]) -> list[dict[str, str]]:
    """For each search whose front was among the seeds: its name, id, tracking URI, experiment and run ("" where it is
    not in MLflow).  One that is no longer there is left out."""
    parents = []
    for path in facts.get("parent_searches") or []:
        try:
            directory, settings = find_search(Path(path))
            search_id = str(read_json(directory / FACTS_FILE, "search")["search_id"])
        except (InputError, KeyError):
            continue
        written = read_state(directory)
        parents.append(
            {"name": settings.name, "search_id": search_id, "uri": tracking_uri(settings.tracking.uri) or ""}
            | {"experiment_id": written.experiment_id, "run_id": written.run_id}
        )
    return parents
