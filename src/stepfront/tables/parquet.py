"""Read and write the tables' Parquet files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from stepfront.errors import InputError
from stepfront.files import write_atomically
from stepfront.tables.schema import TABLES


def read_table(path: Path) -> pd.DataFrame:
    """Return the table in a file with the name of a declared one.

    Columns that are younger than the file have their fill value, and a missing text is "".  Raises InputError when the
    file is missing, is damaged or lacks a required column.
    """
    table = TABLES[path.name]
    try:
        frame = pd.read_parquet(path)
    except FileNotFoundError:
        raise InputError(
            f"no {table.name} at {path}; run `stepfront search` first, or give a search directory"
        ) from None
    except Exception as error:  # pyarrow's own errors for damaged files
        raise InputError(f"{path} is not a readable table: {' '.join(str(error).split())[:200]}") from None
    if missing := [name for name in table.required if name not in frame]:
        raise InputError(f"{path} lacks {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}")
    younger = {name: value for name, value in table.fills.items() if name not in frame}
    texts = [name for name in table.texts if name in frame]
    # Parquet's null reads as NaN, which is not a text; a column of nulls alone reads as numbers.
    frame = frame.astype({name: object for name in texts if frame[name].isna().all()})
    return frame.fillna(dict.fromkeys(texts, "")).assign(**younger)


def read_optional_table(path: Path) -> pd.DataFrame:
    """Return the table in a file, or a table without rows where the file is missing."""
    return read_table(path) if path.is_file() else pd.DataFrame(columns=TABLES[path.name].names)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet, atomically."""
    write_atomically(path, lambda beside: table.to_parquet(beside, index=False))
