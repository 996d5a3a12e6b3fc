"""Check that the columns of a table hold values of the declared kinds, before anything computes with them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stepfront.checksums import place_of_search
from stepfront.errors import InputError
from stepfront.tables.columns import Column, Table

_WORDS = {
    "integer": "whole numbers",
    "number": "numbers",
    "text": "texts",
    "truth": "true or false",
    "integers": "lists of whole numbers",
    "numbers": "lists of numbers",
}


def with_kinds(frame: pd.DataFrame, table: Table, path: Path) -> pd.DataFrame:
    """Return the frame with each declared column in the type of its kind: a missing number NaN, a missing text "".

    Raises InputError, which names column, row and value, for a value of another kind, and for a missing value where the
    kind has none.
    """
    present = [column for column in table.columns if column.name in frame]
    frame = frame.assign(**{column.name: _converted(frame[column.name], column, path) for column in present})
    for column in table.columns:
        if column.finite is not None and column.name in frame:
            _check_finite(frame, column, path)
    return frame


def _converted(values: pd.Series, column: Column, path: Path) -> pd.Series:
    kind, allowed = column.kind, column.nullable or column.kind in ("number", "text")
    missing = values.isna()
    if missing.any() and not allowed:
        raise _damaged(path, column, "nothing", int(missing.to_numpy().argmax()))
    present = values[~missing]
    if not _fits_as_it_is(present, kind):
        for row, value in enumerate(values):
            if not missing.iloc[row] and not _fits(value, kind):
                raise _damaged(path, column, repr(value)[:60], row)
    if kind == "text":
        # A column of nulls alone reads as numbers.
        return (values.astype(object) if missing.all() else values).fillna("")
    types: dict[str, Any] = {"number": "float64", "integer": "float64" if missing.any() else "int64", "truth": "bool"}
    return values.astype(types.get(kind, object)) if len(present) else values.astype("float64" if allowed else object)


def _damaged(path: Path, column: Column, given: str, row: int) -> InputError:
    return InputError(
        f"{path} is damaged: {column.name} holds {_WORDS[column.kind]}, not {given} (row {row}); "
        f"`stepfront doctor {place_of_search(path)} --repair` rebuilds what can be rebuilt"
    )


def _fits_as_it_is(values: pd.Series, kind: str) -> bool:
    """Return whether the column's own type shows that all values fit; False where each has to be looked at."""
    types = pd.api.types
    if kind == "text":
        return types.infer_dtype(values, skipna=False) in ("string", "empty")
    if kind == "truth":
        return bool(types.is_bool_dtype(values))
    if kind == "number":
        return bool(types.is_numeric_dtype(values) and not types.is_bool_dtype(values))
    return bool(kind == "integer" and types.is_integer_dtype(values))


def _fits(value: Any, kind: str) -> bool:
    if kind == "text":
        return isinstance(value, str)
    if kind == "truth":
        return isinstance(value, (bool, np.bool_))
    if kind == "number":
        return _is_number(value)
    if kind == "integer":
        return _is_whole(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "iuf":
        return bool(np.isfinite(value).all() and (kind == "numbers" or not (value % 1).any()))
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        return False
    return all(_is_whole(one) if kind == "integers" else _is_number(one) and math.isfinite(one) for one in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value) and float(value).is_integer()


def _check_finite(frame: pd.DataFrame, column: Column, path: Path) -> None:
    """Raise InputError where a number that must not be missing is, or is infinite."""
    rows = frame[frame["state"] == "complete"] if column.finite == "complete" and "state" in frame else frame
    wrong = ~np.isfinite(rows[column.name].to_numpy(dtype=np.float64))
    if wrong.any():
        raise _damaged(path, column, "nothing", int(wrong.argmax()))
