"""Measure the time that a search has run, over all its sessions."""

from __future__ import annotations

import time


class SearchClock:
    """Count seconds from where the session before stopped, `before`."""

    def __init__(self, before: float = 0.0) -> None:
        self._begin = time.monotonic()
        self.continue_from(before)

    def continue_from(self, seconds: float) -> None:
        """Set the time of all earlier sessions, which is also the last one stamped."""
        self._before = self._last = seconds

    @property
    def elapsed(self) -> float:
        """Seconds that the search has run, over all its sessions."""
        return self._before + time.monotonic() - self._begin

    def stamp(self) -> float:
        """Return the elapsed seconds, to the millisecond and later than at any call before.

        Stamps order the results of a search, also across a resume.
        """
        self._last = max(round(self.elapsed, 3), round(self._last + 1e-3, 3))
        return self._last
