"""Check how many writes a trial takes, and that a crash or an outage between them loses nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.search.study.test_ledger import make_ledger, outcomes, run, score

WRITES = ("create_new_trial", "set_trial_user_attr", "set_trial_system_attr", "set_trial_state_values")


def test_a_trial_is_one_write_and_its_result_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = run(make_ledger("sqlite", tmp_path), most=5)
    writes: list[str] = []

    def counting(name: str) -> Callable[..., object]:
        real = getattr(ledger.storage, name)

        def counted(*args: object, **kwargs: object) -> object:
            writes.append(name)
            return real(*args, **kwargs)

        return counted

    for name in WRITES:
        monkeypatch.setattr(ledger.storage, name, counting(name))
    asked = ledger.ask()
    assert writes == ["create_new_trial"]
    assert asked is not None
    writes.clear()
    ledger.tell(asked.number, score(asked), "w")
    assert writes == ["set_trial_user_attr", "set_trial_state_values"]


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_driver_that_died_between_the_two_writes_of_a_result_loses_nothing(kind: str, tmp_path: Path) -> None:
    ledger = run(make_ledger(kind, tmp_path), most=3)
    asked = ledger.ask()
    assert asked is not None
    ledger.storage.set_trial_state_values = _die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        ledger.tell(asked.number, score(asked), "w")
    again = make_ledger(kind, tmp_path)
    assert again.interrupted == 0
    assert again.trials[3].state == TrialState.COMPLETE
    assert again.trials[3].values == [score(asked).fid, score(asked).gflops]


def _die(*args: object, **kwargs: object) -> None:
    raise KeyboardInterrupt


def test_a_write_whose_answer_was_lost_is_not_done_twice(tmp_path: Path) -> None:
    ledger = make_ledger("sqlite", tmp_path)
    real, calls = ledger.storage.create_new_trial, []

    def lose_the_answer(*args, **kwargs):  # type: ignore[no-untyped-def]
        made = real(*args, **kwargs)
        calls.append(made)
        if len(calls) == 3:
            raise sqlite3.OperationalError("database is locked")
        return made

    ledger.storage.create_new_trial = lose_the_answer  # type: ignore[method-assign]
    run(ledger)
    assert outcomes(make_ledger("sqlite", tmp_path)) == outcomes(run(make_ledger("memory", tmp_path)))
