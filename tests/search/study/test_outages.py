"""Check that an outage of the storage is survived, and that waiting has a limit."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

import pytest

from stepfront.errors import InputError
from stepfront.search.study.outages import retry_during_outage
from tests.search.study.test_ledger import make_ledger, run


def test_waiting_has_a_bound_and_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def locked() -> None:
        raise sqlite3.OperationalError("database is locked")

    with pytest.raises(InputError, match=r"did not answer for 1 s: database is locked; .*stepfront resume"):
        retry_during_outage(locked, patience=1)
    full = sqlite3.OperationalError("database or disk is full")
    begin = time.monotonic()
    with pytest.raises(InputError, match=r"can't be written: database or disk is full; .*stepfront resume"):
        retry_during_outage(lambda: (_ for _ in ()).throw(full), patience=30)
    assert time.monotonic() - begin < 20  # waiting would not help
    with pytest.raises(ZeroDivisionError):
        retry_during_outage(lambda: 1 // 0)  # a mistake of ours is no outage
    attempts = iter([ConnectionResetError("connection reset"), None])

    def second_time() -> str:
        error = next(attempts)
        if error:
            raise error
        return "done"

    assert retry_during_outage(second_time) == "done"


def test_a_locked_database_is_waited_for(tmp_path: Path) -> None:
    ledger = run(make_ledger("sqlite", tmp_path), most=3)
    other = sqlite3.connect(tmp_path / "study.db", check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    begin = time.monotonic()
    freed = threading.Timer(1.5, other.rollback)
    freed.start()
    assert ledger.ask() is not None
    assert time.monotonic() - begin > 1.4
    freed.join()
    other.close()
