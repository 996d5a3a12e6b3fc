"""Write a study to a database that one process writes, with as few statements as its rows need.

Optuna's own storage expects other writers.  It reads the trial again before each attribute, parameter and value, and
looks for rows that another process may have written: 26 statements for a new trial with five parameters and three
attributes.  The rows are the same here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import IntegrityError

from stepfront.search.optuna_internals import storage_tables


class OneWriterStorage(RDBStorage):
    """Optuna's storage in a database, for studies whose trials one process writes.

    Whatever is not the usual case, such as a trial that is finished already, is left to Optuna.
    """

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Store a trial with its parameters and attributes, in one transaction; return its id."""
        if template_trial is None or not _is_new(template_trial):
            return int(super().create_new_trial(study_id, template_trial))
        tables = self._tables
        row = tables.TrialModel(datetime_start=template_trial.datetime_start)  # as Optuna converts it to UTC
        with self.engine.begin() as connection:
            number = connection.execute(self._count, {"study": study_id}).scalar_one_or_none()
            if number is None:
                raise KeyError("the study was deleted")  # as Optuna does; SQLite would store a trial of no study
            trial = {"study_id": study_id, "number": number, "state": template_trial.state}
            trial["datetime_start"] = row._datetime_start_utc
            made = connection.execute(sqlalchemy.insert(tables.TrialModel.__table__), trial)
            trial_id = int(made.inserted_primary_key[0])
            if parameters := _parameters(template_trial, trial_id):
                connection.execute(sqlalchemy.insert(tables.TrialParamModel.__table__), parameters)
            if attributes := [
                {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
                for key, value in template_trial.user_attrs.items()
            ]:
                connection.execute(sqlalchemy.insert(tables.TrialUserAttributeModel.__table__), attributes)
        return trial_id

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Store an attribute of a trial that is not finished."""
        if not self._is_added(self._new_user_attribute, trial_id, key, value):
            super().set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Store an attribute of Optuna's own, such as the excess of a constraint, of a trial that is not finished."""
        if not self._is_added(self._new_system_attribute, trial_id, key, value):
            super().set_trial_system_attr(trial_id, key, value)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Store the state and the values of a trial, in one transaction; return whether the state was changed."""
        if state.is_finished():
            with self.engine.begin() as connection:
                row = self._tables.TrialModel(datetime_complete=datetime.now())
                ended = {"trial": trial_id, "new": state, "at": row._datetime_complete_utc}
                if connection.execute(self._end, ended).rowcount == 1:
                    if values:
                        connection.execute(
                            sqlalchemy.insert(self._tables.TrialValueModel.__table__), self._values(trial_id, values)
                        )
                    return True
        return bool(super().set_trial_state_values(trial_id, state, values))

    def _is_added(self, statement: Any, trial_id: int, key: str, value: Any) -> bool:
        """Return whether an attribute that the trial did not have is stored; False where it has one, or is finished."""
        given = {"trial": trial_id, "key": key, "value": json.dumps(value)}
        try:
            with self.engine.begin() as connection:
                return bool(connection.execute(statement, given).rowcount == 1)
        except IntegrityError:
            return False

    def _values(self, trial_id: int, values: Sequence[float]) -> list[dict[str, Any]]:
        stored = map(self._tables.TrialValueModel.value_to_stored_repr, values)
        return [
            {"trial_id": trial_id, "objective": objective, "value": value, "value_type": kind}
            for objective, (value, kind) in enumerate(stored)
        ]

    @cached_property
    def _tables(self) -> Any:
        return storage_tables()

    @cached_property
    def _count(self) -> Any:
        """Count the trials of a study; there is no row where there is no study."""
        trials, studies = self._tables.TrialModel.__table__.c, self._tables.StudyModel.__table__.c
        study: Any = sqlalchemy.bindparam("study")
        count = sqlalchemy.select(sqlalchemy.func.count(trials.trial_id)).where(trials.study_id == study)
        return sqlalchemy.select(count.scalar_subquery()).where(studies.study_id == study)

    @cached_property
    def _end(self) -> Any:
        table = self._tables.TrialModel.__table__
        running = table.c.trial_id == sqlalchemy.bindparam("trial"), table.c.state == TrialState.RUNNING
        new: Any = {"state": sqlalchemy.bindparam("new"), "datetime_complete": sqlalchemy.bindparam("at")}
        return sqlalchemy.update(table).where(*running).values(new)

    @cached_property
    def _new_user_attribute(self) -> Any:
        return self._new_attribute(self._tables.TrialUserAttributeModel.__table__)

    @cached_property
    def _new_system_attribute(self) -> Any:
        return self._new_attribute(self._tables.TrialSystemAttributeModel.__table__)

    def _new_attribute(self, table: Any) -> Any:
        trials, text = self._tables.TrialModel.__table__.c, sqlalchemy.Text()
        given = [sqlalchemy.bindparam(name, type_=text) for name in ("key", "value")]
        running = trials.trial_id == sqlalchemy.bindparam("trial"), trials.state == TrialState.RUNNING
        row = sqlalchemy.select(trials.trial_id, *given).where(*running)
        return sqlalchemy.insert(table).from_select(["trial_id", "key", "value_json"], row)


def _is_new(trial: FrozenTrial) -> bool:
    """Return whether a trial has nothing but parameters and attributes of the user."""
    return not (trial.state.is_finished() or trial.values or trial.system_attrs or trial.intermediate_values)


def _parameters(trial: FrozenTrial, trial_id: int) -> list[dict[str, Any]]:
    return [
        {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": distribution.to_internal_repr(trial.params[name]),
            "distribution_json": distribution_to_json(distribution),
        }
        for name, distribution in trial.distributions.items()
    ]
