"""Find in which settings searches differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from stepfront.dashboards.formatting import MISSING
from stepfront.tables.search_tables import SearchTables

PLACES = ("name", "directory", "supernet", "storage", "data.cache", "tracking.uri")
"""Settings that say where a search is kept, not what it does."""

NOT_GIVEN = object()
"""The value of a setting that a search's file lacks: an older version wrote it, or it can't be read."""


def differing_settings(searches: Sequence[SearchTables]) -> dict[str, list[Any]]:
    """Return the settings in which searches differ, by their keys from the root on, with the value of each search.

    Settings that say where a search is kept are left out.
    """
    found = [dict(_flat(_read(tables.settings))) for tables in searches]
    keys = dict.fromkeys(key for settings in found for key in settings)
    values = {key: [settings.get(key, NOT_GIVEN) for settings in found] for key in keys if key not in PLACES}
    return {key: each for key, each in values.items() if any(value != each[0] for value in each)}


def shown_value(value: Any) -> str:
    """Return a value as it is written in a settings file, or a dash for one that is not given."""
    if value is NOT_GIVEN:
        return MISSING
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def _read(text: str) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}


def _flat(group: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in group.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
