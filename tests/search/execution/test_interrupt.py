"""Ctrl-C: it ends a search even where the exception that it raises is lost."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from stepfront.search.execution.interrupt import (
    InterruptedSearchError,
    handle_sigterm,
    interruptible,
    sigterm_handler_kept,
)


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """Restore the handler: after one Ctrl-C the handler of the second stays armed."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_first_ends_in_order_and_says_how_to_go_on(capfd: pytest.CaptureFixture[str]) -> None:
    def search() -> None:
        with interruptible("continue so") as check:
            check()
            signal.raise_signal(signal.SIGINT)
            pytest.fail("it continued")

    with pytest.raises(InterruptedSearchError, match=r"^interrupted; continue so$"):
        search()
    assert capfd.readouterr().err == "stepfront: stopping; press Ctrl-C again to stop at once\n"


def test_one_that_was_lost_is_noticed_later() -> None:
    reached = []

    def search() -> None:
        with interruptible("continue so") as check:
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            reached.append("what comes after a lost one")
            check()
            reached.append("what comes after the check")

    with pytest.raises(InterruptedSearchError):
        search()
    assert reached == ["what comes after a lost one"]


def test_sigterm_acts_as_ctrl_c(capfd: pytest.CaptureFixture[str]) -> None:
    def search() -> None:
        with interruptible("go on so"):
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("it went on")

    handle_sigterm()
    with pytest.raises(InterruptedSearchError, match=r"^interrupted; go on so$"):
        search()
    assert capfd.readouterr().err == "stepfront: stopping; press Ctrl-C again to stop at once\n"


@pytest.mark.parametrize("of_sigint", [signal.default_int_handler, signal.SIG_IGN])
def test_sigterm_outside_of_a_search_is_a_keyboard_interrupt_even_where_a_library_took_it(
    of_sigint: Any,
) -> None:
    signal.signal(signal.SIGINT, of_sigint)  # ignored, as in a background job of a script
    handle_sigterm()
    with sigterm_handler_kept():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
