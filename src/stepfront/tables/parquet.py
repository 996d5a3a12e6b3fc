"""Read and write the tables' Parquet files."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd

from stepfront.checksums import place_of_search, read_checked
from stepfront.errors import InputError
from stepfront.files import write_atomically
from stepfront.tables.column_kinds import with_kinds
from stepfront.tables.schema import TABLES


def read_table(path: Path) -> pd.DataFrame:
    """Return the table in a file with the name of a declared one.

    Columns that are younger than the file have their fill value, and a missing text is "".  Raises InputError when the
    file is missing, differs from its checksum, is damaged, lacks a required column, or when a column has values of
    another kind than declared.
    """
    table = TABLES[path.name]
    try:
        frame = pd.read_parquet(io.BytesIO(read_checked(path)))
    except FileNotFoundError:
        raise InputError(f"no {table.name} at {path}; {_remedy(path)}") from None
    except InputError:
        raise
    except Exception as error:  # pyarrow's own errors for damaged files
        raise InputError(f"{path} is not a readable table: {' '.join(str(error).split())[:200]}") from None
    if missing := [name for name in table.required if name not in frame]:
        raise InputError(f"{path} lacks {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}")
    younger = {name: value for name, value in table.fills.items() if name not in frame}
    return with_kinds(frame, table, path).assign(**younger)


def read_optional_table(path: Path) -> pd.DataFrame:
    """Return the table in a file, or a table without rows where nothing is there."""
    return read_table(path) if path.exists() else pd.DataFrame(columns=TABLES[path.name].names)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet, atomically."""
    write_atomically(path, lambda beside: table.to_parquet(beside, index=False))


def _remedy(path: Path) -> str:
    """Return what makes a table that is missing."""
    search, verb = place_of_search(path), TABLES[path.name].made_by
    if verb in ("baselines", "confirm"):
        return f"`stepfront {verb} {search}` makes it"
    return f"run `stepfront {verb}` first, or give a search directory; `stepfront doctor {search} --repair` rebuilds it"
