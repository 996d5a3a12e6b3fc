"""Check that stamps order the results of a search, also across a resume."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepfront.search.study.budget import SearchClock
from tests.search.study.test_ledger import make_ledger, score


def test_results_of_one_moment_keep_their_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ledger = make_ledger("sqlite", tmp_path)
    monkeypatch.setattr("stepfront.search.study.budget.time.monotonic", lambda: 0.0)
    asked = [ledger.ask() for _ in range(4)]
    for one in reversed(asked):
        assert one is not None
        ledger.tell(one.number, score(one), "w")
    order = [trial.number for trial in ledger.complete]
    assert order == [3, 2, 1, 0]
    assert [trial.number for trial in make_ledger("sqlite", tmp_path).complete] == order


def test_a_clock_continues_where_the_session_before_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("stepfront.search.study.budget.time.monotonic", lambda: now)
    clock = SearchClock(7.5)
    assert (clock.elapsed, clock.stamp(), clock.stamp()) == (7.5, 7.501, 7.502)
    now = 103.0
    assert (clock.elapsed, clock.stamp()) == (10.5, 10.5)
