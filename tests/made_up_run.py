"""Write a made-up search to the disk, as far as verbs read one that load no network."""

from __future__ import annotations

from pathlib import Path

from benchmarks.tracking import made_up_search
from stepfront.checksums import begin_record
from stepfront.files import write_json, write_text
from stepfront.search.config import save_settings, settings_from
from stepfront.tables.parquet import write_table
from stepfront.tables.schema import FRONT, PROGRESS, TRIALS


def write_made_up_run(runs: Path, name: str) -> Path:
    """Write a search of 8 trials, whose files are recorded, to RUNS/NAME; return the run."""
    settings = settings_from({"name": name, "directory": str(runs), "tracking": {"uri": None}})
    directory, found = settings.search_directory, made_up_search(8)
    directory.mkdir(parents=True)
    begin_record(directory)
    for file, table in ((TRIALS, found.trials), (PROGRESS, found.progress), (FRONT, found.front)):
        write_table(table, directory / file)
    write_json(directory / "search.json", dict(found.facts) | {"evaluations": len(found.trials)})
    write_text(directory / "images" / "index.json", "[]")
    save_settings(settings, directory / "settings.yaml")
    return settings.run_directory
