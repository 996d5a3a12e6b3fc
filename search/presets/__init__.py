"""Ship settings with the package: `stepfront quickstart` runs one, `stepfront init` starts a file from any of them.

`configs/` links to the files here.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from stepfront.errors import InputError


def preset_names() -> list[str]:
    """Return the names of the shipped settings files."""
    found = (place.name for place in files(__name__).iterdir())
    return sorted(name.removesuffix(".yaml").replace("_", "-") for name in found if name.endswith(".yaml"))


def preset_text(name: str) -> str:
    """Return the text of a shipped settings file.  Raises InputError for an unknown name."""
    file = files(__name__).joinpath(f"{name.replace('-', '_')}.yaml")
    if name.replace("_", "-") not in preset_names():
        raise InputError(f"unknown preset {name!r}; possible: {', '.join(preset_names())}")
    return file.read_text(encoding="utf-8")


def preset(name: str) -> dict[str, Any]:
    """Return a shipped settings file as a plain mapping.  Raises InputError for an unknown name."""
    import yaml  # the command line imports this module for its help

    content = yaml.safe_load(preset_text(name))
    assert isinstance(content, dict)
    return content
