"""Whether a search directory is whole: a directory in, findings out; and its views rebuilt from the study.

The study is the truth.  Tables, facts, report and MLflow are views of it, and can always be made again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from search import tables
from search.config import RunSettings
from search.directory import COSTS_FILE, FACTS_FILE, read_snapshot, resume_settings
from search.doctor import Finding, attempt
from search.front import front_indices
from search.ingredients import Ingredients, read_costs
from search.lock import directory_lock
from search.run import open_ledger, write_tables
from search.study import Ledger
from trainers.errors import InputError
from trainers.files import read_json


def examine_search(path: Path) -> list[Finding]:
    """All findings about a search directory.  InputError when no search was begun there, or one is running."""
    settings = resume_settings(path)
    with directory_lock(settings.search_directory):
        return _Checkup(settings).findings()


def repair(path: Path) -> RunSettings:
    """Rebuilds tables and facts from the study.  InputError when study or ingredients can't be used."""
    settings = resume_settings(path)
    directory = settings.search_directory
    with directory_lock(directory):
        checkup = _Checkup(settings)
        write_tables(checkup.ingredients, checkup.ledger, checkup.costs, directory, checkup.command)
    return settings


@dataclass
class _Checkup:
    settings: RunSettings

    @property
    def directory(self) -> Path:
        return self.settings.search_directory

    @cached_property
    def ingredients(self) -> Ingredients:
        begun = (self.directory / FACTS_FILE).exists()
        return Ingredients.of_search(self.settings, self.directory) if begun else Ingredients.load(self.settings)

    @cached_property
    def costs(self) -> dict:
        if not (self.directory / COSTS_FILE).exists():
            raise InputError(f"no {self.directory / COSTS_FILE}; `stepfront resume` measures the widths again")
        return read_costs(self.directory)

    @cached_property
    def ledger(self) -> Ledger:
        return open_ledger(self.ingredients, self.costs, self.directory)

    @property
    def command(self) -> str:
        path = self.directory / FACTS_FILE
        return str(read_json(path, "search").get("command", "")) if path.exists() else ""

    def findings(self) -> list[Finding]:
        checks: list[tuple[str, Callable[[], str]]] = [
            ("supernet", self._supernet),
            ("costs", lambda: f"measured on {next(iter(self.costs.values())).device}"),
            ("study", self._study),
            ("tables", self._tables),
            ("front", self._front),
        ]
        return [attempt(what, check) for what, check in checks]

    def _supernet(self) -> str:
        found = self.ingredients
        return (
            f"digest {found.card.digest[:12]} and reference of {found.features.name} belong to "
            f"{found.data.name} {found.data.fingerprint[:12]}"
        )

    def _study(self) -> str:
        ledger = self.ledger
        said = f"{len(ledger.complete)} complete, {ledger.failed} failed, {ledger.waiting} cut off"
        return said + ("; `stepfront resume` goes on" if ledger.waiting or not ledger.spent() else "")

    def _tables(self) -> str:
        """The tables as the study would have them, against those on the disk."""
        snapshot = read_snapshot(self.directory)
        fresh = tables.trials_table(
            self.ledger, self.ingredients.encoding, self.ingredients.times, self.settings.sampler.solver, "fid"
        )
        if len(fresh) != len(snapshot.trials):
            raise InputError(f"{tables.TRIALS} has {len(snapshot.trials)} trials, the study {len(fresh)}; {_MEND}")
        columns = ["trial", "genome", "state", "fid", "gflops"]
        if not _equal(fresh[columns], snapshot.trials[columns]):
            raise InputError(f"{tables.TRIALS} differs from the study; {_MEND}")
        if len(snapshot.progress) != len(self.ledger.complete):
            raise InputError(f"{tables.PROGRESS} has {len(snapshot.progress)} rows; {_MEND}")
        return f"{len(fresh)} trials, as in the study"

    def _front(self) -> str:
        snapshot = read_snapshot(self.directory)
        complete = snapshot.trials[snapshot.trials["state"] == "complete"].reset_index(drop=True)
        objectives = list(self.settings.evaluation.objectives)
        best = front_indices(complete[objectives].to_numpy(dtype=float), complete["violation"].to_numpy(dtype=float))
        if set(complete["trial"].iloc[best]) != set(snapshot.front["trial"]):
            raise InputError(f"{tables.FRONT} is not the front of {tables.TRIALS}; {_MEND}")
        return f"{len(snapshot.front)} points, the front of the trials"


_MEND = "`stepfront doctor SEARCH --repair` makes it anew"


def _equal(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    try:
        pd.testing.assert_frame_equal(one.reset_index(drop=True), other.reset_index(drop=True), check_dtype=False)
    except AssertionError:
        return False
    return True
