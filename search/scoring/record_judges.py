"""Keep beside a search how its judges did in their examinations, for the report."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from stepfront.errors import InputError
from stepfront.files import read_json_list, write_json
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.scoring.second_judge import FOLDER
from stepfront.tables.schema import JUDGES_FILE
from stepfront.trainers.metrics.features import PackedFeatures
from stepfront.trainers.metrics.judges import find_examination, read_examinations


def record_judges(problem: SearchProblem, directory: Path, second: PackedFeatures | None = None) -> None:
    """Write the examinations of the search's judge and of the `second` one, as far as they were examined.

    Without a second one, as before a confirmation, those that an earlier confirmation has recorded stay.  Feature sets
    that failed are listed, too, as not used.  Judges of other searches of the same supernet are not.
    """
    entries = _entries("search", problem.supernet.local, problem.features)
    if second is None:
        entries += _recorded_second(directory)
    else:
        entries += _entries("confirm", problem.supernet.local / FOLDER, second)
    write_json(directory / JUDGES_FILE, entries)


def _entries(role: str, folder: Path, used: PackedFeatures) -> list[dict[str, Any]]:
    """Return one entry per feature set that is used or has failed."""
    own = find_examination(folder, used)
    found = [one for one in read_examinations(folder) if one == own or not one.passed]
    return [{"role": role, "used": one == own} | asdict(one) for one in found]


def _recorded_second(directory: Path) -> list[dict[str, Any]]:
    """Return the second judge's entries that the search already has; none where there are none or they are damaged."""
    try:
        recorded = read_json_list(directory / JUDGES_FILE, "list of judges")
    except InputError:
        return []
    return [entry for entry in recorded if isinstance(entry, dict) and entry.get("role") == "confirm"]
