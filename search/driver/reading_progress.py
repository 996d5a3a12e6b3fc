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
    first, last = 0, 0

    def report(done: int, total: int) -> None:
        nonlocal begun, reported, first, last
        now = clock()
        if last == 0 or done < last:  # what came before the first image says nothing of the pace; nor do other images
            begun, first = now, done
        last = done
        if now - reported >= QUIET_SECONDS:
            reported = now
            pace = f", {duration((now - begun) * (total - done) / (done - first))} left" if done > first else ""
            stage(f"{what}: {done:,} of {total:,}{pace}")

    return report


def encoding_progress(stage: Stage) -> Progress:
    """Return a progress for the encoding of `load_images`."""
    return reading_progress(stage, what="encoding the images")
