"""Check which layout a search directory has, so that one of another version gives one clear line."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import yaml

from stepfront.errors import InputError
from stepfront.files import read_json
from stepfront.tables.schema import FACTS_FILE, SETTINGS_FILE

FORMAT = 2
"""Version of the layout, `format` in search.json.  Layout 1 is that of stepfront 0.1, which did not record it."""

_FILES_OF_1 = ("controls.parquet", "rungs.parquet")


def check_format(directory: Path) -> None:
    """Raise InputError when another version of stepfront made the search in `directory`; a missing search passes."""
    found: Any = None
    with contextlib.suppress(InputError):  # missing or damaged: other checks report that
        found = read_json(directory / FACTS_FILE, "search").get("format")
    if found is None and _is_layout_1(directory):
        raise InputError(
            f"the search in {directory} was made by stepfront 0.1, and this version can't read it; "
            "search again with --fresh, or use stepfront 0.1 to read it"
        )
    if isinstance(found, int) and found > FORMAT:
        raise InputError(
            f"the search in {directory} has layout {found}, and this version reads layouts up to {FORMAT}; "
            "install a newer stepfront to read it"
        )


def _is_layout_1(directory: Path) -> bool:
    """Return whether the files or the settings are those of stepfront 0.1."""
    if any((directory / name).exists() for name in _FILES_OF_1):
        return True
    try:
        settings = yaml.safe_load((directory / SETTINGS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    if not isinstance(settings, dict):
        return False
    screen = settings.get("screen")
    return "seeds" in settings or (isinstance(screen, dict) and "rung" in screen)
