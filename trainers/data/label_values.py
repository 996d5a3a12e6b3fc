"""Read labels of any type as one whole number or one name per image, and refuse what is neither."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.reading_report import ReadingReport

Given: TypeAlias = NDArray[Any] | Sequence[Any] | None
"""Labels as a reader found them, one per image; None without labels."""

IGNORE = "set data.labels=ignore to use the images without labels"
_MOST_DIGITS = 18  # whole numbers of 64 bits have as many at least
_NUMBER = "a number of at least 0 for each image, or a name, needed"


def label_values(given: Given, settings: DataSettings, place: str, report: ReadingReport) -> NDArray[Any] | None:
    """Return one value per image, whole numbers or text; None where no image has a label.

    Raises InputError for fractions, NaN, missing labels, several classes per image and -1.
    """
    values = None if given is None else _as_array(given, place)
    if values is None:
        return None
    if values.ndim == 0:
        raise InputError(f"{place} are {values.dtype} {values.shape}; {_NUMBER}")
    if values.ndim > 1:
        values = _one_column(values, place, report)
    if values.dtype.kind in "US":
        values = _numbers_in_text([_text(value) for value in values.tolist()], place)
    if values.dtype.kind == "f":
        values = _whole_numbers(values, place)
    if values.dtype.kind == "b" or (values.dtype.kind == "u" and values.max(initial=0) < 2**63):
        values = values.astype(np.int64)
    if values.dtype.kind not in "iuU":
        raise InputError(f"{place} are {values.dtype}; {_NUMBER}; {IGNORE}")
    return _without_minus(values, settings, place, report)


def _as_array(given: NDArray[Any] | Sequence[Any], place: str) -> NDArray[Any] | None:
    if isinstance(given, (np.ndarray, np.generic)) and given.dtype.kind != "O":
        return np.asarray(given)
    values = list(given)
    there = [value for value in values if value is not None]
    if values and not there:
        return None
    if len(there) < len(values):
        count = f"{len(values)} images but {len(there)} labels"
        raise InputError(f"{place}: {count}; all or none needed: give the others, or {IGNORE}")
    text = [isinstance(value, (str, bytes)) for value in values]
    if all(text):
        return np.array([_text(value) for value in values], dtype=str)
    if any(text):
        raise InputError(f"{place} are numbers and text ({_text(values[text.index(True)])[:20]!r}); {IGNORE}")
    if any(isinstance(value, int) and abs(value) >= 2**64 for value in values):
        raise InputError(f"{place} are numbers of more than 64 bits; {IGNORE}")
    try:
        return np.array(values)
    except (ValueError, OverflowError):
        raise InputError(f"{place} hold several values per image, where one class is needed; {IGNORE}") from None


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _one_column(values: NDArray[Any], place: str, report: ReadingReport) -> NDArray[Any]:
    """Return labels [N, 1] and one-hot ones [N, K] as [N].  Raises InputError for all others."""
    if values.size == len(values):
        return values.reshape(-1)
    if values.ndim == 2 and values.dtype.kind in "biuf" and np.isin(values, (0, 1)).all():
        if (values.sum(axis=1) == 1).all():
            report.note(f"one-hot labels of {values.shape[1]} columns are classes 0 to {values.shape[1] - 1}")
            return values.argmax(axis=1)
        raise InputError(f"{place} {list(values.shape)} name several classes or none for an image; {IGNORE}")
    given = f"{values.dtype} {list(values.shape)}"
    raise InputError(f"{place} are {given}, neither one number per image nor one-hot; {IGNORE}")


def _numbers_in_text(given: list[str], place: str) -> NDArray[Any]:
    """Return text as numbers where all of it is numbers, and else as names."""
    texts = [text.strip() for text in given]
    if any(not text for text in texts):
        raise InputError(f"{place} are empty for an image; {IGNORE}")
    plain = [text.removeprefix("-") for text in texts]
    if all(text.isascii() and text.isdigit() for text in plain):
        digits = max((len(text.lstrip("0")) for text in plain), default=0)
        if digits > _MOST_DIGITS:
            raise InputError(f"{place} have numbers of up to {digits:,} digits; {IGNORE}")
        return np.array([int(text) for text in texts], dtype=np.int64)
    numbers = [_is_number(text) for text in texts]
    if all(numbers):
        return np.array([float(text) for text in texts])
    if any(numbers):
        odd = texts[numbers.index(False)]
        raise InputError(f"{place} are numbers and text ({odd[:20]!r}); {IGNORE}")
    return np.array(texts, dtype=str)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _whole_numbers(values: NDArray[Any], place: str) -> NDArray[Any]:
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        odd = f"{values[wrong[0]]} for {len(wrong)} of {len(values)} images (first: image {wrong[0]})"
        raise InputError(f"{place} hold {odd}; {IGNORE}")
    fractions = values[values != np.floor(values)]
    if len(fractions):
        raise InputError(f"{place} are fractions such as {fractions[0]:.6g}, so no classes; {IGNORE}")
    if (np.abs(values) >= 2**53).any():
        raise InputError(f"{place} are numbers as large as {np.abs(values).max():.3g}; {IGNORE}")
    return values.astype(np.int64)


def _without_minus(
    values: NDArray[Any], settings: DataSettings, place: str, report: ReadingReport
) -> NDArray[Any] | None:
    if values.dtype.kind != "i" or settings.labels == "map" or not (values < 0).any():
        return values
    if (values == -1).all():
        report.note(f"{place} are all -1, which stands for no label")
        return None
    raise InputError(
        f"{place} hold {values.min()}; a number of at least 0 for each image needed, as -1 may stand for no label or "
        "for a class: set data.labels=map to take every value as a class, or ignore"
    )
