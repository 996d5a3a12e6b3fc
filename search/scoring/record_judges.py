"""Keep beside a search how its judges did in their examinations, for the report."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from stepfront.files import write_json
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.scoring.second_judge import FOLDER
from stepfront.tables.schema import JUDGES_FILE
from stepfront.trainers.metrics.features import PackedFeatures
from stepfront.trainers.metrics.judges import read_examinations


def record_judges(problem: SearchProblem, directory: Path, second: PackedFeatures | None = None) -> None:
    """Write the examinations of the search's judge and of the `second` one, as far as they were examined.

    Feature sets that `auto` passed over are listed, too, as not used.
    """
    entries = _entries("search", problem.supernet.local, problem.features)
    if second is not None or (problem.supernet.local / FOLDER).is_dir():
        entries += _entries("confirm", problem.supernet.local / FOLDER, second)
    write_json(directory / JUDGES_FILE, entries)


def _entries(role: str, folder: Path, used: PackedFeatures | None) -> list[dict[str, Any]]:
    """Return one entry per examined feature set; of the second judge, those that passed are used."""
    return [
        {"role": role, "used": one.passed if used is None else one.features == used.name} | asdict(one)
        for one in read_examinations(folder)
    ]
