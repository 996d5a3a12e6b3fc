"""List the runs in a folder: how far each is, what it found and how much space it takes."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from stepfront.errors import InputError
from stepfront.search.records.layout_version import check_format
from stepfront.search.records.run_directory import find_search
from stepfront.search.storage.lock import is_in_use
from stepfront.tables.facts import read_facts
from stepfront.tables.parquet import read_table
from stepfront.tables.schema import ADAPTATION, FACTS_FILE, FRONT, SETTINGS_FILE
from stepfront.trainers.networks.card import CARD_FILE

State = Literal[
    "training", "trained", "adapted", "searching", "interrupted", "finished", "damaged", "other version", "begun"
]


@dataclass(frozen=True)
class RunSummary:
    """One run; numbers are None where there is no search, or it can't be read.

    Those of a search at work are the last that its driver wrote.
    """

    name: str
    directory: str
    state: State
    bytes: int
    problem: str = ""
    """Why a run that is damaged or of another version can't be read."""
    dataset: str | None = None
    trials: int | None = None
    points: int | None = None
    best_fid: float | None = None
    flops_saved: float | None = None
    """Share of full width's FLOPs that a claim of equal quality saves; None where none holds."""
    flops_saved_against_best_full_width: float | None = None
    """The same against the cheapest full-width sampler of equal quality, which is what widths are worth."""
    confirmed: bool = False


def list_runs(folder: Path) -> list[RunSummary]:
    """Return the runs in a folder by name, or the one that the folder is, or of which it is the search or supernet.

    Raises InputError when there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give one that holds runs, such as runs")
    if _is_run(folder):
        return [_summary(folder)]
    if _is_part(folder):
        return [_summary(folder.parent if folder.name else folder.absolute().parent)]
    return [_summary(one) for one in sorted(folder.iterdir()) if one.is_dir() and _is_run(one)]


def _is_run(folder: Path) -> bool:
    return any((folder / part).is_dir() for part in ("search", "supernet"))


def _is_part(folder: Path) -> bool:
    signs = (FACTS_FILE, SETTINGS_FILE, CARD_FILE)
    return folder.absolute().name in ("search", "supernet") and any((folder / sign).is_file() for sign in signs)


def _summary(run: Path) -> RunSummary:
    search, supernet = run / "search", run / "supernet"
    summary = RunSummary(run.absolute().name, str(run), "begun", bytes_in(run))
    if is_in_use(search):
        with contextlib.suppress(InputError):  # no table yet, or one that is being replaced
            summary = _with_numbers(summary, search)
        return replace(summary, state="searching")
    if is_in_use(supernet):
        return replace(summary, state="training")
    if not (search / FACTS_FILE).exists():
        made: State = "adapted" if (supernet / ADAPTATION).exists() else "trained"
        trained = made if (supernet / CARD_FILE).exists() else "begun"
        return replace(summary, state="interrupted" if (search / SETTINGS_FILE).exists() else trained)
    try:
        check_format(search)
    except InputError as error:
        return replace(summary, state="other version", problem=str(error))
    try:
        find_search(search)  # what the other verbs refuse is not finished
        return _with_numbers(summary, search)
    except InputError as error:
        return replace(summary, state="damaged", problem=str(error))


def _with_numbers(summary: RunSummary, search: Path) -> RunSummary:
    """Return the summary with what a search's facts and front say; raise InputError where they can't be read."""
    facts, front = read_facts(search), read_table(search / FRONT)
    savings = facts.get("savings") or {}
    holds = savings.get("holds") is True
    return replace(
        summary,
        state="finished" if facts.get("finished") else "interrupted",
        dataset=facts.get("dataset"),
        trials=facts.get("evaluations", 0) + facts.get("failed", 0),
        points=len(front),
        best_fid=float(front["fid"].min()) if len(front) else None,
        flops_saved=savings.get("flops_saved") if holds else None,
        flops_saved_against_best_full_width=savings.get("flops_saved_against_best_full_width") if holds else None,
        confirmed=bool(savings),
    )


def bytes_in(folder: Path) -> int:
    """Return the size of the files in a folder; a run at work deletes some of them meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found = os.lstat(os.path.join(place, name))
                total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total
