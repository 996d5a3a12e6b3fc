"""Ctrl-C: the first ends a search in order, the second at once; either way it can be resumed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType


class InterruptedSearchError(Exception):
    """A search that was ended by Ctrl-C; its message says how to go on."""


@contextlib.contextmanager
def second_one_ends(hint: str) -> Iterator[None]:
    """Within: the first Ctrl-C raises KeyboardInterrupt, and from then on the next ends the process, with code 130."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def at_once(number: int, frame: FrameType | None) -> None:
        # Nothing is lost: results are in the study as soon as they are told, and files are renamed when whole.
        print(f"stepfront: stopped at once; {hint}", file=sys.stderr, flush=True)
        os._exit(130)

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, at_once)
        print("stepfront: stopping; once more ends at once", file=sys.stderr, flush=True)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, first)
    try:
        yield
    except KeyboardInterrupt:
        # The second stays armed: what follows, such as ending Ray, takes seconds, too.
        raise InterruptedSearchError(f"interrupted; {hint}") from None
    except BaseException:
        signal.signal(signal.SIGINT, before)
        raise
    signal.signal(signal.SIGINT, before)
