"""Check that studies are written with few statements, into the rows that Optuna's own storage would write."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from sqlalchemy import event

from stepfront.search.study.one_writer_storage import OneWriterStorage
from stepfront.search.study.plan_parameters import trial_parameters
from tests.search.study.test_ledger import ENCODING, make_ledger, run

BEGAN = datetime(2026, 3, 29, 2, 30, 0, 125000)


def storage_in(directory: Path, kind: type[RDBStorage] = OneWriterStorage) -> Any:
    return kind(f"sqlite:///{directory / kind.__name__}.db")


def rows_of(storage: Any) -> dict[str, list[Any]]:
    """Every row of the tables of trials; of a trial's end, the last column, whether it has come."""
    tables = sqlalchemy.MetaData()
    tables.reflect(storage.engine)
    named = {name: table for name, table in tables.tables.items() if name.startswith("trial")}
    with storage.engine.connect() as connection:
        rows = {name: connection.execute(sqlalchemy.select(table)).all() for name, table in named.items()}
    assert named["trials"].columns.keys()[-1] == "datetime_complete"
    rows["trials"] = [(*row[:-1], row[-1] is None) for row in rows["trials"]]
    return {name: sorted(map(tuple, some), key=str) for name, some in rows.items()}


def written(storage: Any) -> Any:
    """Write trials of two studies: running, complete, failed, with an attribute that changes and with constraints."""
    directions = [StudyDirection.MINIMIZE] * 2
    one, two = (storage.create_new_study(directions, name) for name in ("one", "two"))
    for study, genome in [(one, "0" * 10), (two, "3" * 10), (one, "0123012301"), (one, "2" * 10)]:
        trial = create_trial(
            state=TrialState.RUNNING,
            user_attrs={"genome": genome, "parents": [1, 2], "text": "ä'\""},
            **trial_parameters(ENCODING, genome),
        )
        trial.datetime_start = BEGAN
        storage.create_new_trial(study, trial)
    for value in (2, {"fid": 0.1 + 0.2, "error": ""}):
        storage.set_trial_user_attr(1, "result", value)
    storage.set_trial_system_attr(1, "constraints:gflops <= 2", -0.25)
    assert storage.set_trial_state_values(1, TrialState.COMPLETE, [1 / 3, float("inf")])
    assert storage.set_trial_state_values(2, TrialState.FAIL)
    return storage


def test_a_deleted_study_gets_no_trial(tmp_path: Path) -> None:
    """SQLite would store it, and give the study's id to the next one."""
    storage = storage_in(tmp_path)
    study = storage.create_new_study([StudyDirection.MINIMIZE] * 2, "one")
    trial = create_trial(state=TrialState.RUNNING, **trial_parameters(ENCODING, "0" * 10))
    storage.delete_study(study)
    with pytest.raises(KeyError):
        storage.create_new_trial(study, trial)
    assert not storage.get_all_trials(storage.create_new_study([StudyDirection.MINIMIZE] * 2, "two"))


def test_the_rows_are_those_of_optunas_own_storage(tmp_path: Path) -> None:
    own, optunas = (written(storage_in(tmp_path, kind)) for kind in (OneWriterStorage, RDBStorage))
    assert rows_of(own) == rows_of(optunas)
    assert [[trial.number for trial in own.get_all_trials(study)] for study in (1, 2)] == [[0, 1, 2], [0]]
    for mine, other in zip(own.get_all_trials(1), optunas.get_all_trials(1), strict=True):
        for name in ("params", "distributions", "user_attrs", "constraints", "values", "state", "datetime_start"):
            assert getattr(mine, name) == getattr(other, name), name


def test_templates_of_other_kinds_are_stored_by_optuna(tmp_path: Path) -> None:
    storage = storage_in(tmp_path)
    study = storage.create_new_study([StudyDirection.MINIMIZE], "one")
    storage.create_new_trial(study)
    storage.create_new_trial(study, create_trial(value=2.5, system_attrs={"key": "value"}))
    blank, finished = storage.get_all_trials(study)
    assert (blank.number, blank.state) == (0, TrialState.RUNNING)
    assert (finished.number, finished.value, finished.system_attrs) == (1, 2.5, {"key": "value"})


def test_a_finished_trial_is_not_changed(tmp_path: Path) -> None:
    storage = written(storage_in(tmp_path))
    before = rows_of(storage)
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_user_attr(1, "later", 1)
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_user_attr(1, "result", 1)
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(1, TrialState.FAIL)
    with pytest.raises(KeyError):
        storage.set_trial_user_attr(77, "later", 1)
    assert rows_of(storage) == before


def test_a_trial_that_can_not_be_stored_leaves_no_row(tmp_path: Path) -> None:
    storage = written(storage_in(tmp_path))
    before = rows_of(storage)
    with pytest.raises(TypeError):
        storage.create_new_trial(1, create_trial(state=TrialState.RUNNING, user_attrs={"genome": {1, 2}}))
    assert rows_of(storage) == before


def test_a_trial_with_parameters_takes_seven_statements_however_many_there_are(tmp_path: Path) -> None:
    ledger = run(make_ledger("sqlite", tmp_path, encoding=ENCODING), most=12)
    statements: list[str] = []
    event.listen(ledger.storage.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))  # type: ignore[attr-defined]
    counts = []
    for most in (1, 1, 1):
        run(ledger, most)
        counts.append(len(statements))
        statements.clear()
    assert counts == [7, 7, 7]
