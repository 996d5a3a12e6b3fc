"""Describe a table: its file, its columns, and what to do where an older file lacks one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

Kind = Literal["integer", "number", "text", "truth", "integers", "numbers"]

NO_FILL: Any = object()
"""Stands for "no fill value": the column is left out where a file lacks it."""


@dataclass(frozen=True)
class Column:
    """A column: its name, the kind of its values and what they mean, in one line.

    A file that lacks a `required` column cannot be read.  A column with a `fill` value is younger than some searches,
    and is added with that value where a file lacks it.  Any other column is optional.  `finite` says where a number
    must not be missing: in every row, or in the rows of complete trials.  Whole numbers, truths and lists are missing
    only where a column is `nullable`.
    """

    name: str
    kind: Kind
    meaning: str
    required: bool = False
    fill: Any = NO_FILL
    finite: Literal["always", "complete"] | None = None
    nullable: bool = False

    @property
    def in_older_files(self) -> str:
        """The fill value in words; empty where there is none."""
        if self.fill is NO_FILL:
            return ""
        words = {"nan": "NaN", "": "empty", "True": "true"}
        return words.get(str(self.fill), str(self.fill))


@dataclass(frozen=True)
class Table:
    """A table of a search directory, and the verb that makes it.  `name` is its file without the suffix."""

    file: str
    meaning: str
    columns: tuple[Column, ...]
    made_by: str = "search"

    @property
    def name(self) -> str:
        """The name that messages use: trials for trials.parquet."""
        return self.file.removesuffix(".parquet")

    @property
    def names(self) -> list[str]:
        """All columns, in the order in which they are written."""
        return [column.name for column in self.columns]

    @property
    def required(self) -> list[str]:
        """The columns without which the table cannot be read."""
        return [column.name for column in self.columns if column.required]

    @property
    def fills(self) -> dict[str, Any]:
        """The value of each column that older files lack."""
        return {column.name: column.fill for column in self.columns if column.fill is not NO_FILL}


def with_required(columns: Iterable[Column], names: set[str]) -> tuple[Column, ...]:
    """Return the columns with those in `names` required, and no other: the others may be missing in any row."""
    return tuple(
        replace(column, required=column.name in names, nullable=column.name not in names) for column in columns
    )
