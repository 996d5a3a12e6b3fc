"""These tests are about Ray: its processes do the work."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="module")
def at_once() -> None:
    """Leave Ray as it is."""
