"""Ctrl-C: the first ends a search in order, the second at once; either way it can be resumed."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


def _say(line: str) -> None:
    # Past Python's buffers: a signal may come while they are being written, and they can't be entered twice.
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())


class InterruptedSearchError(Exception):
    """A search that was ended by Ctrl-C; its message says how to go on."""


@contextlib.contextmanager
def second_one_ends(hint: str) -> Iterator[Callable[[], None]]:
    """Within: the first Ctrl-C raises KeyboardInterrupt, and from then on the next ends the process, with code 130.

    What it gives is to be called now and then, and raises KeyboardInterrupt once more where the first was lost, as one
    is that comes while Python runs a destructor or a callback from C.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before, asked = signal.getsignal(signal.SIGINT), False

    def at_once(number: int, frame: FrameType | None) -> None:
        # Nothing is lost: results are in the study as soon as they are told, and files are renamed when whole.
        _say(f"stepfront: stopped at once; {hint}")
        os._exit(130)

    def first(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, at_once)
        _say("stepfront: stopping; once more ends at once")
        raise KeyboardInterrupt

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, first)
    try:
        yield check
    except KeyboardInterrupt:
        # The second stays armed: what follows, such as ending Ray, takes seconds, too.
        raise InterruptedSearchError(f"interrupted; {hint}") from None
    except BaseException:
        signal.signal(signal.SIGINT, before)
        raise
    signal.signal(signal.SIGINT, before)
