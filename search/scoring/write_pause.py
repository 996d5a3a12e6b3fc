"""Write scores from time to time while they arrive: whoever scores plans may be killed."""

from __future__ import annotations

import time
from collections.abc import Callable

LEAST_PAUSE = 10.0
"""Least seconds between two writes."""


class WritePause:
    """Writes where the last write is long enough ago; a fiftieth of the time goes into writing at most."""

    def __init__(self) -> None:
        self._next = time.monotonic() + LEAST_PAUSE

    def write(self, write: Callable[[], None]) -> None:
        """Call `write`, unless it was called a moment ago."""
        begin = time.monotonic()
        if begin >= self._next:
            write()
            self._next = time.monotonic() + max(LEAST_PAUSE, 50 * (time.monotonic() - begin))
