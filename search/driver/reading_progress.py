"""How far the reading of images has come: counts in; a line now and then, with the time that is left, out."""

from __future__ import annotations

import time
from collections.abc import Callable

from stepfront.dashboards.formatting import duration
from stepfront.trainers.data import Progress

QUIET_SECONDS = 10.0


def reading(say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> Progress:
    """A progress of `load_data` that says nothing of what takes less than ten seconds."""
    begun = said = clock()
    last = 0

    def tell(done: int, total: int) -> None:
        nonlocal begun, said, last
        now = clock()
        if done < last:  # the held-out images begin
            begun = now
        last = done
        if now - said >= QUIET_SECONDS:
            said = now
            left = duration((now - begun) * (total - done) / done)
            say(f"reading the images: {done:,} of {total:,}, {left} left")

    return tell
