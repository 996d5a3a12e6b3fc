"""Check whether a search directory is complete and consistent, and rebuild its tables from the study.

The study is the truth.  Tables, facts, report and MLflow are views of it, and can always be rebuilt.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from stepfront.checksums import changed_since_written, damaged_files, place_of_search
from stepfront.errors import InputError
from stepfront.search.checks.doctor import Finding, run_check
from stepfront.search.checks.search_files import (
    accept_settings,
    check_search_files,
    check_supernet_files,
    describe_judges,
    has_no_tables_yet,
    move_damaged_aside,
    record_all,
)
from stepfront.search.config import RunSettings
from stepfront.search.driver.open_ledger import how_to_rebuild, open_ledger
from stepfront.search.driver.write_tables import TableWriter
from stepfront.search.objectives import Objectives
from stepfront.search.pareto import front_indices
from stepfront.search.problem.costs import read_costs
from stepfront.search.problem.load import load_problem, load_problem_of_search, with_samplers
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.learnt_samplers import fitted_weights, read_samplers, read_search_samplers
from stepfront.search.records.plan_rows import fitted_weights_of
from stepfront.search.records.run_directory import resume_settings
from stepfront.search.storage.lock import directory_lock
from stepfront.search.study.ledger import Ledger
from stepfront.search.study.optuna_storage import (
    DATABASE_FILE,
    JOURNAL_FILE,
    finished_numbers,
    is_file,
    put_aside,
    recorded_study,
)
from stepfront.search.study.views import recorded_numbers, recorded_trials, trials_table
from stepfront.search.tracking.store_check import check_run
from stepfront.tables.facts import read_facts, search_id_of
from stepfront.tables.parquet import read_table, write_table
from stepfront.tables.schema import FRONT, PROGRESS, SETTINGS_FILE, TRIALS
from stepfront.tables.search_tables import read_snapshot


def check_search(path: Path) -> list[Finding]:
    """Return all findings about a search directory.

    Raises InputError when no search was begun there, or when one is running.
    """
    settings = resume_settings(path, checked=False)
    with directory_lock(settings.search_directory), closing(_Inspection(settings)) as inspection:
        return inspection.findings()


def repair_search(path: Path, say: Callable[[str], None] = lambda line: None) -> RunSettings:
    """Rebuild tables and facts from the study, and a damaged study from its table; return the search's settings.

    Other damaged files are renamed, and settings that were changed are accepted; `say` is called with a line for each.
    Raises InputError when neither study nor table can be used, or when the problem cannot be loaded.
    """
    settings = resume_settings(path, checked=False)
    directory = settings.search_directory
    with directory_lock(directory), closing(_Inspection(settings)) as inspection:
        if changed_since_written(directory / SETTINGS_FILE):
            accept_settings(directory)
            say(f"{SETTINGS_FILE} was changed, and is accepted as it is")
        study_changed = inspection.study_file in _damaged(directory)
        for line in move_damaged_aside(directory):
            say(line)
        _rebuild_study(inspection, study_changed)
        with recorded_study(settings.storage, directory), closing(inspection):
            costs, command = inspection.costs, inspection.command
            writer = TableWriter(inspection.problem, inspection.ledger, costs, directory, command)
            writer.write_steps(writer.write())
        record_all(directory)
    return settings


def _rebuild_study(inspection: _Inspection, changed: bool) -> None:
    """Rebuild a study that lacks trials of the table: rename its file, and fill a new study from the table.

    A study of which some byte has `changed` since the search ended is rebuilt, too, unless it gives the same table.

    Results that came after the table was last written are lost; interrupted trials are evaluated again.
    """
    settings, directory = inspection.settings, inspection.directory
    study, recorded = finished_numbers(settings.storage, directory), recorded_numbers(directory)
    if study is not None and recorded <= study and not (changed and recorded and inspection.differs):
        return
    where = f"the study of {directory} is damaged or lacks trials"
    if not recorded:
        raise InputError(f"{where}, and {TRIALS} has none to rebuild it from; start over with --fresh")
    if study and study - recorded:
        raise InputError(f"{where}, but has {len(study - recorded)} that {TRIALS} lacks; delete the older of the two")
    if study and not is_file(settings.storage):
        raise InputError(f"{where}; a shared database is left as it is: restore it from its backup")
    table, rounds = read_table(directory / TRIALS), _recorded_rounds(directory)
    problem, costs = inspection.problem, inspection.costs  # an input that is missing raises before a file is renamed
    _check_genomes(problem, table)
    if is_file(settings.storage):
        put_aside(settings.storage, directory)
    with closing(open_ledger(problem, costs, directory)) as empty:
        empty.restore(recorded_trials(table))
        empty.fit_rounds.restore(rounds)


def _check_genomes(problem: SearchProblem, table: pd.DataFrame) -> None:
    """Raise InputError where the genomes of a table are not those of its plans in the space of the settings."""
    for genome, plan in zip(table["genome"].astype(str), table["plan"], strict=True):
        if problem.plan_of(genome).runs != plan:
            raise InputError(
                f"{TRIALS} has genomes of another space than {SETTINGS_FILE}: the search was killed while it was "
                "extended; restore the study, or settings and tables, from one backup"
            )


def _recorded_rounds(directory: Path) -> list[dict[str, Any]]:
    """Return the pauses for fits in search.json; none where it is missing or damaged."""
    with contextlib.suppress(InputError):
        return list(read_facts(directory).get("fit_rounds") or [])
    return []


def _damaged(directory: Path) -> dict[str, str]:
    with contextlib.suppress(InputError):  # the record itself is damaged
        return damaged_files(directory)
    return {}


@dataclass
class _Inspection:
    settings: RunSettings

    @property
    def directory(self) -> Path:
        return self.settings.search_directory

    @cached_property
    def problem(self) -> SearchProblem:
        try:
            read_facts(self.directory)
        except InputError:  # missing or damaged: the study knows the supernet's digest as well
            return with_samplers(load_problem(self.settings), read_search_samplers(self.directory))
        return load_problem_of_search(self.settings, self.directory)

    @cached_property
    def costs(self) -> dict:
        return read_costs(self.directory)

    @cached_property
    def ledger(self) -> Ledger:
        return open_ledger(self.problem, self.costs, self.directory)

    @property
    def command(self) -> str:
        with contextlib.suppress(InputError):
            return str(read_facts(self.directory).get("command", ""))
        return ""

    @property
    def study_file(self) -> str:
        """Return the name of the study's file; empty where it is in a shared database."""
        files = {None: DATABASE_FILE, "journal": JOURNAL_FILE}
        return files.get(self.settings.storage, "")

    @property
    def differs(self) -> bool:
        """Whether the table that the study gives is another than the one on disk, or there is none."""
        try:
            self._tables()
        except Exception:  # whatever a study with a changed byte raises
            return True
        finally:
            self.close()
        return False

    def close(self) -> None:
        """Close the storage, where it was opened."""
        if "ledger" in self.__dict__:
            self.ledger.close()
            del self.ledger

    def findings(self) -> list[Finding]:
        checks: list[tuple[str, Callable[[], str]]] = [
            ("settings", lambda: self._settings()),
            ("files of the search", lambda: check_search_files(self.directory)),
            # Before loading, which makes some files again.
            ("files of the supernet", lambda: check_supernet_files(self.settings)),
            ("supernet", self._supernet),
            ("costs", lambda: f"measured on {next(iter(self.costs.values())).device}"),
            ("facts", self._facts),
            ("study", self._study),
            ("tables", self._tables),
            ("front", self._front),
            ("judges", lambda: describe_judges(self.directory)),
            ("mlflow", lambda: check_run(self.settings)),
        ]
        if has_no_tables_yet(self.directory):
            waiting = ("facts", "tables", "front", "judges", "mlflow")
            checks = [(what, check) for what, check in checks if what not in waiting]
            checks.append(("tables", lambda: "none yet: they come with the first generation"))
        return [run_check(what, check) for what, check in checks]

    def _settings(self) -> str:
        if changed_since_written(self.directory / SETTINGS_FILE):
            raise InputError(
                f"{SETTINGS_FILE} was changed since the search wrote it; restore it, or, if the change is meant, "
                "accept it with --repair"
            )
        return f"of the run {self.settings.name}"

    def _supernet(self) -> str:
        found = self.problem
        groups = "" if found.card.groups is None else f"{len(found.card.groups.first)} groups of times, "
        return (
            f"{groups}digest {found.card.digest[:12]} and reference of {found.features.name} belong to "
            f"{found.data.name} {found.data.fingerprint[:12]}"
        )

    def _facts(self) -> str:
        try:
            return f"search {search_id_of(read_facts(self.directory))}"
        except InputError as error:
            raise InputError(str(error) if "--repair" in str(error) else f"{error}; {self._remedy}") from None

    def _study(self) -> str:
        study, recorded = finished_numbers(self.settings.storage, self.directory), recorded_numbers(self.directory)
        if study is None:
            raise InputError(f"damaged; {how_to_rebuild(self.directory)}")
        if lost := recorded - study:
            raise InputError(f"lacks {len(lost)} of the trials in {TRIALS}; {how_to_rebuild(self.directory)}")
        ledger = self.ledger
        state = f"{len(ledger.complete)} complete, {ledger.failed} failed, {ledger.interrupted} interrupted"
        unfinished = ledger.interrupted or not ledger.budget_exhausted
        return state + ("; `stepfront resume` continues it" if unfinished else "")

    @property
    def _remedy(self) -> str:
        return f"`stepfront doctor {place_of_search(self.directory)} --repair` rebuilds it"

    def _tables(self) -> str:
        """Compare the tables that the study would give with those on disk."""
        snapshot = read_snapshot(self.directory)
        rebuilt = trials_table(self.ledger, self.problem.plan_of, read_samplers(self.directory))
        for digest in rebuilt["learnt"]:
            if weights := fitted_weights_of(str(digest)):
                fitted_weights(self.directory, weights)
        if len(rebuilt) != len(snapshot.trials):
            counts = f"{len(snapshot.trials)} trials, the study {len(rebuilt)}"
            raise InputError(f"{TRIALS} has {counts}; {self._remedy}")
        shared = [name for name in rebuilt if name in snapshot.trials]
        if not (snapshot.trials["grid"] != "").any():  # a table that is older than this column
            rebuilt = rebuilt.assign(grid="")
        if not _equal(_as_read(rebuilt[shared]), snapshot.trials[shared]):
            raise InputError(f"{TRIALS} differs from the study; {self._remedy}")
        if len(snapshot.progress) != len(self.ledger.complete):
            raise InputError(f"{PROGRESS} has {len(snapshot.progress)} rows; {self._remedy}")
        return f"{len(rebuilt)} trials, as in the study"

    def _front(self) -> str:
        snapshot = read_snapshot(self.directory)
        complete = snapshot.trials[snapshot.trials["state"] == "complete"].reset_index(drop=True)
        scores = Objectives.of_settings(self.settings).minimised(complete)
        best = front_indices(scores, complete["violation"].to_numpy(dtype=float))
        if set(complete["trial"].iloc[best]) != set(snapshot.front["trial"]):
            raise InputError(f"{FRONT} is not the front of {TRIALS}; {self._remedy}")
        return f"{len(snapshot.front)} points, the front of the trials"


def _as_read(trials: pd.DataFrame) -> pd.DataFrame:
    """Return a table as it is read from its file."""
    with tempfile.TemporaryDirectory() as scratch:
        write_table(trials, Path(scratch) / TRIALS)
        return read_table(Path(scratch) / TRIALS)


def _equal(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    try:
        pd.testing.assert_frame_equal(one.reset_index(drop=True), other.reset_index(drop=True), check_dtype=False)
    except AssertionError:
        return False
    return True
