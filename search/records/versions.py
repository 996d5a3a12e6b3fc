"""Name the versions that decide scores and speed, and the variable that gives a search its id."""

from __future__ import annotations

import importlib.metadata
import platform

from stepfront.version import __version__

SEARCH_ID = "STEPFRONT_SEARCH_ID"
"""Environment variable with the id of a search that has not begun: a submitted job has the id of its search."""

_PACKAGES = ("torch", "numpy", "ray", "optuna", "mlflow", "pandas")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide scores and speed."""
    found = {"python": platform.python_version(), "stepfront": __version__}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
