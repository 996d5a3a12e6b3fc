"""Ship settings with the package, so that `stepfront quickstart` needs no checkout."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import yaml


def preset(name: str) -> dict[str, Any]:
    """Return a shipped settings file as a plain mapping."""
    content = yaml.safe_load(files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content
