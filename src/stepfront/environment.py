"""Know where the package is installed, and keep the libraries that it starts from sending usage statistics."""

from __future__ import annotations

import os
from pathlib import Path

SOURCE_ROOT = Path(__file__).resolve().parent.parent
"""Folder that holds this package: `src` of a checkout, or site-packages.  Ray workers find it in PYTHONPATH."""


def disable_telemetry() -> None:
    """Keep Ray and MLflow from sending usage statistics, unless the user has set otherwise."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
