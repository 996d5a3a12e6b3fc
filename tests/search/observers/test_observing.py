"""Observers of a search: each trial once, in a thread; one that fails or hangs does not touch the search."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from benchmarks.tracking import made_up_search, until
from stepfront.errors import InputError
from stepfront.search.config import RunSettings, settings_from
from stepfront.search.observers.observing import Observers
from stepfront.search.problem.user_parts import check_parts

SEEN: list[Any] = []
GO_ON = threading.Event()


class Recorder:
    """An observer that notes its calls."""

    def __init__(self, facts: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        SEEN.append((facts["search_id"], settings["name"]))

    def trials(self, rows: Sequence[Mapping[str, Any]]) -> None:
        SEEN.append([row["trial"] for row in rows])

    def close(self, front: Sequence[Mapping[str, Any]]) -> None:
        SEEN.append(("front", [row["trial"] for row in front]))


class Failing(Recorder):
    """An observer whose service is away."""

    def trials(self, rows: Sequence[Mapping[str, Any]]) -> None:
        raise ConnectionError("no route\nto the service")


class Hanging(Recorder):
    """An observer that waits."""

    def trials(self, rows: Sequence[Mapping[str, Any]]) -> None:
        GO_ON.wait(60)


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    SEEN.clear()
    GO_ON.clear()


def settings_with(*names: str) -> RunSettings:
    return settings_from({"name": "mine", "tracking": {"observers": [f"{__name__}:{name}" for name in names]}})


def wait(observers: Observers) -> None:
    assert observers._thread is not None
    observers._thread.join(60)


def test_each_trial_is_shown_once_and_the_front_at_the_end() -> None:
    whole = made_up_search(9)
    with Observers(settings_with("Recorder")) as observers:
        observers.update(until(whole, 4))
        wait(observers)
        observers.update(whole)
    assert SEEN[0] == (whole.facts["search_id"], "mine")
    shown = [trials for trials in SEEN[1:] if isinstance(trials, list)]
    assert [trial for trials in shown for trial in trials] == whole.trials["trial"].tolist()
    assert SEEN[-1] == ("front", whole.front["trial"].tolist())


def test_one_that_fails_is_a_line_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    whole = made_up_search(6)
    with (
        caplog.at_level(logging.WARNING, logger="stepfront"),
        Observers(settings_with("Failing", "Recorder")) as observers,
    ):
        observers.update(until(whole, 3))
        wait(observers)
        observers.update(whole)
    lines = [record.message for record in caplog.records if record.name == "stepfront"]
    assert lines == [f"the observer {__name__}:Failing failed and is not called again: ConnectionError: no route"]
    assert SEEN[-1] == ("front", whole.front["trial"].tolist())


def test_a_search_does_not_wait_for_one_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    whole = made_up_search(3)
    with (
        caplog.at_level(logging.WARNING, logger="stepfront"),
        Observers(settings_with("Hanging"), end_seconds=0.1) as observers,
    ):
        observers.update(whole)
        observers.update(whole)
    assert [record.message for record in caplog.records] == [
        f"the observer {__name__}:Hanging: not waited for any longer"
    ]
    GO_ON.set()


def test_an_interrupted_search_closes_its_observers() -> None:
    whole = made_up_search(3)

    def interrupt() -> None:
        with Observers(settings_with("Recorder")) as observers:
            observers.update(whole)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert SEEN[-1][0] == "front"


def test_a_name_that_can_not_be_imported_ends_in_a_line_before_the_search() -> None:
    wrong = settings_from({"tracking": {"observers": ["no.such.module:Logger"]}})
    with pytest.raises(InputError, match=r"can't import the observer 'no\.such\.module:Logger'"):
        check_parts(wrong)
    with pytest.raises(InputError, match="unknown observer 'wandb'; possible: your own function"):
        settings_from({"tracking": {"observers": ["wandb"]}})
