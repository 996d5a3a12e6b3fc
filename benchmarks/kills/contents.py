"""Say what a verb has made, so that an interrupted call can be compared with one that was not."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from stepfront.beside import is_part
from stepfront.files import file_digest
from stepfront.tables.parquet import read_optional_table

Contents = dict[str, Any]


def folder_contents(folder: Path) -> Contents:
    """Return the digest of each file of a folder; empty where it does not exist."""
    hidden = (".checksums.json.lock",)
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in hidden]
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


def table_contents(file: Path, columns: list[str]) -> list[dict[str, Any]]:
    """Return the rows of a table in these columns, as texts; empty where it does not exist."""
    table = read_optional_table(file)
    return [] if table is None else table[columns].astype(str).to_dict("records")


def page_contents(file: Path) -> str:
    """Return whether an HTML page is missing, complete or cut."""
    if not file.exists():
        return "missing"
    return "complete" if file.read_text(encoding="utf-8").rstrip().endswith("</html>") else "cut"


def mlflow_contents(place: Path) -> Contents:
    """Return what a tracking store holds: the metrics of each run, and model versions with whether they are complete.

    Ids and times differ from call to call and are left out.
    """
    file = place / "mlflow.db"
    if not file.exists():
        return {}
    with contextlib.closing(sqlite3.connect(file)) as store:
        runs = store.execute("SELECT run_uuid, name, status FROM runs WHERE lifecycle_stage = 'active'").fetchall()
        metrics = store.execute("SELECT run_uuid, key, step, value FROM metrics").fetchall()
        tags = store.execute("SELECT run_uuid, key, value FROM tags").fetchall()
        versions = store.execute("SELECT name, version, source FROM model_versions").fetchall()
        aliases = store.execute("SELECT name, alias, version FROM registered_model_aliases").fetchall()
    timed = ("images_per_second", "seconds", "latency")
    found: Contents = {"aliases": sorted(aliases)}
    for run, name, status in runs:
        trial = next((value for one, key, value in tags if one == run and key == "trial"), "")
        key = f"{name} {trial}"
        while key in found:
            key += " again"
        kept = [metric[1:] for metric in metrics if metric[0] == run and not any(t in metric[1] for t in timed)]
        found[key] = (status, sorted(kept))
    found["versions"] = sorted((name, version, _is_whole(source)) for name, version, source in versions)
    return found


def _is_whole(source: str) -> bool:
    folder = Path(unquote(urlparse(source).path))
    return (folder / "MLmodel").is_file() and (folder / "artifacts" / "point" / "plan.json").is_file()


def leftovers(place: Path) -> list[str]:
    """Return the files and folders that are being written, as they seem: nobody writes them any more."""
    found = [path for path in place.rglob("*") if is_part(path.name) or path.suffix in (".part", ".tmp", ".old")]
    return sorted(path.relative_to(place).as_posix() for path in found)
