"""List the runs in a folder: how far each is, what it found and how much space it takes."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stepfront.errors import InputError
from stepfront.search.storage.lock import is_in_use
from stepfront.tables.facts import read_facts
from stepfront.tables.parquet import read_table
from stepfront.tables.schema import ADAPTATION, FACTS_FILE, FRONT, SETTINGS_FILE
from stepfront.trainers.networks.card import CARD_FILE

State = Literal["training", "trained", "adapted", "searching", "interrupted", "finished", "damaged", "begun"]


@dataclass(frozen=True)
class RunSummary:
    """One run; numbers are None where there is no search, or it can't be read."""

    name: str
    directory: str
    state: State
    bytes: int
    problem: str = ""
    """Why a damaged run can't be read."""
    dataset: str | None = None
    trials: int | None = None
    points: int | None = None
    best_fid: float | None = None
    flops_saved: float | None = None
    """Share of full width's FLOPs that a claim of equal quality saves; None where none holds."""
    confirmed: bool = False


def list_runs(folder: Path) -> list[RunSummary]:
    """Return the runs in a folder, or the one that the folder is, by name.

    Raises InputError when there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give one that holds runs, such as runs")
    if _is_run(folder):
        return [_summary(folder)]
    return [_summary(one) for one in sorted(folder.iterdir()) if one.is_dir() and _is_run(one)]


def _is_run(folder: Path) -> bool:
    return any((folder / part).is_dir() for part in ("search", "supernet"))


def _summary(run: Path) -> RunSummary:
    search, supernet = run / "search", run / "supernet"
    size, place = bytes_in(run), str(run)
    if is_in_use(search):
        return RunSummary(run.name, place, "searching", size)
    if is_in_use(supernet):
        return RunSummary(run.name, place, "training", size)
    if not (search / FACTS_FILE).exists():
        made: State = "adapted" if (supernet / ADAPTATION).exists() else "trained"
        trained = made if (supernet / CARD_FILE).exists() else "begun"
        return RunSummary(run.name, place, "interrupted" if (search / SETTINGS_FILE).exists() else trained, size)
    try:
        facts, front = read_facts(search), read_table(search / FRONT)
    except InputError as error:
        return RunSummary(run.name, place, "damaged", size, str(error))
    savings = facts.get("savings") or {}
    return RunSummary(
        run.name,
        place,
        "finished" if facts.get("finished") else "interrupted",
        size,
        dataset=facts.get("dataset"),
        trials=facts.get("evaluations", 0) + facts.get("failed", 0),
        points=len(front),
        best_fid=float(front["fid"].min()) if len(front) else None,
        flops_saved=savings.get("flops_saved") if savings.get("holds") is True else None,
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
