"""Compare the files of a search and of its supernet with their checksums, and move aside what can't be rebuilt."""

from __future__ import annotations

import os
from pathlib import Path

from stepfront.addresses import is_uri
from stepfront.checksums import (
    CHECKSUMS_FILE,
    begin_record,
    damaged_files,
    forget,
    place_of_search,
    record_as_it_is,
    recorded_names,
)
from stepfront.errors import InputError
from stepfront.files import free_name, read_json_list
from stepfront.search.config import RunSettings
from stepfront.search.mlflow_runs.written import NOTE_FILE, WrittenTraining
from stepfront.search.records.run_directory import GROUPS_FOLDER
from stepfront.tables.facts import read_facts
from stepfront.tables.schema import (
    ADAPTATION,
    FACTS_FILE,
    FRONT,
    GAP,
    JUDGES_FILE,
    PROGRESS,
    PROXY_SCORES,
    SENSITIVITY,
    SETTINGS_FILE,
    TRAINING,
    TRIALS,
)

REBUILT = (TRIALS, FRONT, PROGRESS, PROXY_SCORES, GAP, SENSITIVITY, ADAPTATION, FACTS_FILE)
"""Files that are rebuilt from the study and the supernet."""

MADE_BY = {"confirm.parquet": "confirm", "baselines.parquet": "baselines", "methods.parquet": "baselines"}
MADE_BY |= {"versus.parquet": "baselines", "costs.json": "resume", "noise.json": "resume", "gap.npz": "resume"}
MADE_BY |= {"step_errors.npz": "resume", JUDGES_FILE: "resume"}
"""Files that a verb makes again when they are missing."""


def check_search_files(directory: Path) -> str:
    """Return how many files are recorded.  Raises InputError when one differs from its checksum or is missing."""
    found = damaged_files(directory) | _bad_locks(directory)
    repair = f"stepfront doctor {place_of_search(directory)} --repair"
    if found:
        raise InputError(f"{_listed(found)}; `{repair}` rebuilds what can be rebuilt")
    if (directory / CHECKSUMS_FILE).exists():
        return "as recorded"
    if read_facts(directory).get("recorded"):
        raise InputError(f"{CHECKSUMS_FILE} is missing; `{repair}` makes it again")
    return "without checksums: made by an earlier version"


def has_no_tables_yet(directory: Path) -> bool:
    """Return whether a search was interrupted before its first tables: none was ever written."""
    names = {TRIALS, FRONT, FACTS_FILE}
    if not (directory / CHECKSUMS_FILE).exists() or names & recorded_names(directory):
        return False
    return not any((directory / name).exists() for name in names)


def check_supernet_files(settings: RunSettings) -> str:
    """Return how the files of a search's supernet compare with their checksums.  Raises InputError when one differs."""
    if is_uri(settings.supernet_place):
        return "at a URI, not checked"
    directory = settings.supernet_directory
    check_recorded_supernet(settings)
    known = {} if has_no_tables_yet(settings.search_directory) else read_facts(settings.search_directory)
    if "supernet" in known.get("recorded", []) and not _recorded(directory):
        raise InputError(f"{CHECKSUMS_FILE} of {directory} is missing; restore it, or run `stepfront train` again")
    return "as recorded" if _recorded(directory) else "without checksums: made by an earlier version"


def check_recorded_supernet(settings: RunSettings) -> None:
    """Raise InputError where a recorded file of a local supernet, or of a group that it was made of, is damaged."""
    directory = settings.supernet_directory
    made_again = "delete it and run `stepfront train` again"
    if (directory / GROUPS_FOLDER).is_dir():
        made_again = "run `stepfront adapt` again with --fresh"
    again = f"restore it from a copy of {directory}, or {made_again}"
    try:
        found = damaged_files(directory) | _bad_locks(directory)
    except InputError as error:
        raise InputError(f"{error}; {again}") from None
    if (directory / TRAINING).exists() and settings.tracking.uri is not None:
        try:
            WrittenTraining.read_strictly(directory)
        except InputError:
            found |= {NOTE_FILE: "is missing or damaged"}
    if found:
        raise InputError(f"{_listed(found)}; {again}")


def accept_settings(directory: Path) -> None:
    """Record the settings as they are, because the user says that a change is meant."""
    record_as_it_is(directory / SETTINGS_FILE)


def move_damaged_aside(directory: Path) -> list[str]:
    """Rename damaged files that the study can't give back, and return one line per file.

    A record that is damaged is begun again with the files as they are.
    """
    try:
        found = damaged_files(directory)
    except InputError:
        os.replace(directory / CHECKSUMS_FILE, free_name(directory / f"{CHECKSUMS_FILE}.damaged"))
        record_all(directory)
        return [f"{CHECKSUMS_FILE} was damaged; the files are recorded as they are"]
    lines = []
    for name in [name for name in found if name not in (*REBUILT, SETTINGS_FILE)]:
        path = directory / name
        verb = MADE_BY.get(name)
        if name.startswith("study."):
            continue
        if os.path.lexists(path):
            aside = free_name(path.with_name(f"{path.name}.damaged"))
            os.replace(path, aside)
            if verb:
                lines.append(f"{name} {found[name]} and is now {aside.name}; `stepfront {verb}` makes it again")
        elif verb:
            lines.append(f"{name} {found[name]}; `stepfront {verb}` makes it again")
        forget(path)
    return lines


def record_all(directory: Path) -> None:
    """Record every file of a search as it is, where there is no record yet."""
    if (directory / CHECKSUMS_FILE).exists():
        return
    begin_record(directory)
    for path in sorted(directory.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(directory).parts)
        if path.is_file() and not hidden and path.suffix not in (".lock", ".db-wal", ".db-shm"):
            record_as_it_is(path)


def _bad_locks(directory: Path) -> dict[str, str]:
    names = ("lock", "mlflow.lock", f".{CHECKSUMS_FILE}.lock")
    return {name: "is not a file: delete it" for name in names if (directory / name).is_dir()}


def _recorded(directory: Path) -> bool:
    return (directory / CHECKSUMS_FILE).is_file()


def _listed(found: dict[str, str]) -> str:
    first = [f"{name} {what}" for name, what in list(found.items())[:4]]
    more = f", and {len(found) - 4} more" if len(found) > 4 else ""
    return ", ".join(first) + more


def describe_judges(directory: Path) -> str:
    """Return how the judges of a search did in their examinations, as it has recorded them."""
    path = directory / JUDGES_FILE
    if not path.exists():
        return "no examinations recorded: made by an earlier version"
    used = [judge for judge in read_json_list(path, "list of judges") if judge.get("used")]
    words = [
        f"{'second judge ' if judge['role'] == 'confirm' else ''}{judge['features']} "
        f"{'failed: ' + '; '.join(judge['failures']) if judge['failures'] else 'passed'} "
        f"(participation ratio {judge['ratio']:.1f})"
        for judge in used
    ]
    return ", ".join(words) or "not examined (features.examine: skip)"
