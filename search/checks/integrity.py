"""Whether a search directory is whole: a directory in, findings out; and its views rebuilt from the study.

The study is the truth.  Tables, facts, report and MLflow are views of it, and can always be made again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from stepfront.errors import InputError
from stepfront.files import read_json
from stepfront.search.checks.doctor import Finding, attempt
from stepfront.search.config import RunSettings
from stepfront.search.driver.open_ledger import REBUILD, open_ledger
from stepfront.search.driver.write_tables import TableWriter
from stepfront.search.pareto import front_indices
from stepfront.search.problem.costs import read_costs
from stepfront.search.problem.load import load_problem, load_problem_of_search
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.run_directory import COSTS_FILE, FACTS_FILE, resume_settings
from stepfront.search.storage.lock import directory_lock
from stepfront.search.study.ledger import Ledger
from stepfront.search.study.optuna_storage import finished_numbers, is_file, put_aside
from stepfront.search.study.views import recorded_numbers, recorded_trials, trials_table
from stepfront.tables.parquet import read_table
from stepfront.tables.schema import FRONT, PROGRESS, TRIALS
from stepfront.tables.search_tables import read_snapshot


def examine_search(path: Path) -> list[Finding]:
    """All findings about a search directory.  InputError when no search was begun there, or one is running."""
    settings = resume_settings(path)
    with directory_lock(settings.search_directory), closing(_Checkup(settings)) as checkup:
        return checkup.findings()


def repair(path: Path) -> RunSettings:
    """Rebuilds tables and facts from the study, and a study that is damaged from its table.

    InputError when neither can be used, or the problem can't.
    """
    settings = resume_settings(path)
    directory = settings.search_directory
    with directory_lock(directory), closing(_Checkup(settings)) as checkup:
        _rebuild_study(checkup)
        TableWriter(checkup.problem, checkup.ledger, checkup.costs, directory, checkup.command).write()
    return settings


def _rebuild_study(checkup: _Checkup) -> None:
    """Where the study lacks trials that the table has: the file is put aside and the study filled from the table.

    What was told after the table was last written is lost; trials in flight are asked again.
    """
    settings, directory = checkup.settings, checkup.directory
    study, told = finished_numbers(settings.storage, directory), recorded_numbers(directory)
    if study is not None and told <= study:
        return
    where = f"the study of {directory} is damaged or lacks trials"
    if not told:
        raise InputError(f"{where}, and {TRIALS} has none to rebuild it from; begin anew with --fresh")
    if study and study - told:
        raise InputError(f"{where}, but has {len(study - told)} that {TRIALS} lacks: which is older is for you to say")
    if study and not is_file(settings.storage):
        raise InputError(f"{where}; a shared database is left as it is: restore it from its backup")
    known = recorded_trials(read_table(directory / TRIALS))
    problem, costs = checkup.problem, checkup.costs  # what may be missing is missed before a file is renamed
    if is_file(settings.storage):
        put_aside(settings.storage, directory)
    with closing(open_ledger(problem, costs, directory)) as empty:
        empty.restore(known)


@dataclass
class _Checkup:
    settings: RunSettings

    @property
    def directory(self) -> Path:
        return self.settings.search_directory

    @cached_property
    def problem(self) -> SearchProblem:
        try:
            read_json(self.directory / FACTS_FILE, "search")
        except InputError:  # missing or damaged: the study knows the supernet's digest as well
            return load_problem(self.settings)
        return load_problem_of_search(self.settings, self.directory)

    @cached_property
    def costs(self) -> dict:
        if not (self.directory / COSTS_FILE).exists():
            raise InputError(f"no {self.directory / COSTS_FILE}; `stepfront resume` measures the widths again")
        return read_costs(self.directory)

    @cached_property
    def ledger(self) -> Ledger:
        return open_ledger(self.problem, self.costs, self.directory)

    @property
    def command(self) -> str:
        with contextlib.suppress(InputError):
            return str(read_json(self.directory / FACTS_FILE, "search").get("command", ""))
        return ""

    def close(self) -> None:
        """Lets go of the storage, where it was opened."""
        if "ledger" in self.__dict__:
            self.ledger.close()

    def findings(self) -> list[Finding]:
        checks: list[tuple[str, Callable[[], str]]] = [
            ("supernet", self._supernet),
            ("costs", lambda: f"measured on {next(iter(self.costs.values())).device}"),
            ("facts", self._facts),
            ("study", self._study),
            ("tables", self._tables),
            ("front", self._front),
        ]
        return [attempt(what, check) for what, check in checks]

    def _supernet(self) -> str:
        found = self.problem
        return (
            f"digest {found.card.digest[:12]} and reference of {found.features.name} belong to "
            f"{found.data.name} {found.data.fingerprint[:12]}"
        )

    def _facts(self) -> str:
        try:
            return f"search {read_json(self.directory / FACTS_FILE, 'search').get('search_id')}"
        except InputError as error:
            raise InputError(f"{error}; {_MEND}") from None

    def _study(self) -> str:
        study, told = finished_numbers(self.settings.storage, self.directory), recorded_numbers(self.directory)
        if study is None:
            raise InputError(f"damaged; {REBUILD}")
        if lost := told - study:
            raise InputError(f"lacks {len(lost)} of the trials in {TRIALS}; {REBUILD}")
        ledger = self.ledger
        said = f"{len(ledger.complete)} complete, {ledger.failed} failed, {ledger.interrupted} cut off"
        return said + ("; `stepfront resume` goes on" if ledger.interrupted or not ledger.budget_exhausted else "")

    def _tables(self) -> str:
        """The tables as the study would have them, against those on the disk."""
        snapshot = read_snapshot(self.directory)
        fresh = trials_table(self.ledger, self.problem.plan_of)
        if len(fresh) != len(snapshot.trials):
            raise InputError(f"{TRIALS} has {len(snapshot.trials)} trials, the study {len(fresh)}; {_MEND}")
        columns = ["trial", "genome", "state", "fid", "gflops"]
        if not _equal(fresh[columns], snapshot.trials[columns]):
            raise InputError(f"{TRIALS} differs from the study; {_MEND}")
        if len(snapshot.progress) != len(self.ledger.complete):
            raise InputError(f"{PROGRESS} has {len(snapshot.progress)} rows; {_MEND}")
        return f"{len(fresh)} trials, as in the study"

    def _front(self) -> str:
        snapshot = read_snapshot(self.directory)
        complete = snapshot.trials[snapshot.trials["state"] == "complete"].reset_index(drop=True)
        objectives = list(self.settings.evaluation.objectives)
        best = front_indices(complete[objectives].to_numpy(dtype=float), complete["violation"].to_numpy(dtype=float))
        if set(complete["trial"].iloc[best]) != set(snapshot.front["trial"]):
            raise InputError(f"{FRONT} is not the front of {TRIALS}; {_MEND}")
        return f"{len(snapshot.front)} points, the front of the trials"


_MEND = "`stepfront doctor SEARCH --repair` makes it anew"


def _equal(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    try:
        pd.testing.assert_frame_equal(one.reset_index(drop=True), other.reset_index(drop=True), check_dtype=False)
    except AssertionError:
        return False
    return True
