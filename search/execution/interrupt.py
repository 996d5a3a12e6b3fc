"""Handle Ctrl-C: the first ends a search gracefully, the second at once; either way the search can be resumed.

SIGTERM, which Kubernetes and Slurm send, acts as Ctrl-C does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


def _print(line: str) -> None:
    # Without Python's buffers: a signal may arrive during a write to them, and they are not reentrant.
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())


def handle_sigterm() -> None:
    """Let SIGTERM act as Ctrl-C does, in this process."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    # Called, not raised: a process that a shell script starts in the background ignores SIGINT.
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(signal.SIGINT, frame)
    else:
        raise KeyboardInterrupt


@contextlib.contextmanager
def sigterm_handler_kept() -> Iterator[None]:
    """Restore Python's handler of SIGTERM afterwards, where there was one; Ray's own prints C++ stacks."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


class InterruptedSearchError(Exception):
    """A search that Ctrl-C has ended; the message says how to resume it."""


@contextlib.contextmanager
def interruptible(hint: str) -> Iterator[Callable[[], None]]:
    """Turn the first Ctrl-C into an InterruptedSearchError, and let the second end the process with code 130.

    Yields a function that must be called now and then.  It raises KeyboardInterrupt again where the first one was lost,
    as happens when Ctrl-C arrives while Python runs a destructor or a callback from C.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before, interrupted = signal.getsignal(signal.SIGINT), False

    def at_once(number: int, frame: FrameType | None) -> None:
        # Nothing is lost: results are in the study as soon as they arrive, and files are written atomically.
        _print(f"stepfront: stopped at once; {hint}")
        os._exit(130)

    def first(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        signal.signal(signal.SIGINT, at_once)
        _print("stepfront: stopping; press Ctrl-C again to stop at once")
        raise KeyboardInterrupt

    def check() -> None:
        if interrupted:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, first)
    try:
        yield check
    except KeyboardInterrupt:
        # The second stays armed, since what follows, such as ending Ray, takes seconds.
        raise InterruptedSearchError(f"interrupted; {hint}") from None
    except BaseException:
        signal.signal(signal.SIGINT, before)
        raise
    signal.signal(signal.SIGINT, before)
