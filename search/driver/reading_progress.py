"""Report from time to time how many images are read or encoded, and how long the rest will take."""

from __future__ import annotations

import time
from collections.abc import Callable

from stepfront.dashboards.formatting import duration
from stepfront.trainers.data import Progress

QUIET_SECONDS = 10.0

Stage = Callable[[str], None]
"""Called with what is being done now, in a few words."""


def reading_progress(
    stage: Stage, clock: Callable[[], float] = time.monotonic, what: str = "reading the images"
) -> Progress:
    """Return a progress for `load_images` that reports every ten seconds, and nothing of a shorter read."""
    begun = reported = clock()
    last = 0

    def report(done: int, total: int) -> None:
        nonlocal begun, reported, last
        now = clock()
        if done < last:  # the held-out images begin
            begun = now
        last = done
        if now - reported >= QUIET_SECONDS:
            reported = now
            left = duration((now - begun) * (total - done) / done)
            stage(f"{what}: {done:,} of {total:,}, {left} left")

    return report


def encoding_progress(stage: Stage) -> Progress:
    """Return a progress for the encoding of `load_images`."""
    return reading_progress(stage, what="encoding the images")
