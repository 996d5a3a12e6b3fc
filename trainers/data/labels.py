"""Turn labels into classes 0, 1, ...: one rule for all readers, applied before training.

Names are numbered in alphabetical order and numbers in theirs.  The names of the classes are kept in the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.label_values import IGNORE, Given, label_values
from stepfront.trainers.data.reading_report import ReadingReport, shown
from stepfront.trainers.data.spill_buffer import Labels

MOST_CLASSES = 100_000
FEW_IMAGES = 10


def settle_labels(
    train: Given, held_out: Given, settings: DataSettings, report: ReadingReport, place: str, names: Sequence[str] = ()
) -> tuple[Labels | None, Labels | None]:
    """Return the classes of both splits, int64 [N] each, and keep their names in the report.

    `names` are those that the data itself gives to the numbers 0, 1, ...  Raises InputError for labels that are no
    classes.
    """
    if settings.labels == "ignore":
        if train is not None or held_out is not None:
            report.note("labels are ignored (data.labels)")
        return None, None
    first = label_values(train, settings, f"{place}: training labels", report)
    second = label_values(held_out, settings, f"{place}: held-out labels", report)
    if first is None:
        if second is not None:
            report.note("only the held-out images have labels; they are not used")
        return None, None
    if second is not None and (first.dtype.kind == "U") != (second.dtype.kind == "U"):
        raise InputError(f"{place}: labels are text in one split and numbers in the other; {IGNORE}")
    values = _values(first, second)
    report.class_names, report.classes_settled = _class_names(values, names, settings, report, place), True
    keep = _keeps_numbers(values, names, settings)
    numbered = [None if v is None else v.astype(np.int64) if keep else _positions(values, v) for v in (first, second)]
    if settings.labels == "auto" and not names:
        _check_repeated(numbered[0], place)
    return numbered[0], numbered[1]


def _values(first: NDArray[Any], second: NDArray[Any] | None) -> NDArray[Any]:
    """Return all different values of both splits, ascending."""
    distinct = [np.unique(values) for values in (first, second) if values is not None]
    if len({values.dtype.kind for values in distinct}) > 1:  # numbers beyond 63 bits in one split alone
        return np.array(sorted({value for values in distinct for value in values.tolist()}), dtype=object)
    return np.unique(np.concatenate(distinct))


def _positions(values: NDArray[Any], labels: NDArray[Any]) -> Labels:
    return np.searchsorted(values, labels.astype(values.dtype)).astype(np.int64)


def _keeps_numbers(values: NDArray[Any], names: Sequence[str], settings: DataSettings) -> bool:
    return values.dtype.kind != "U" and (bool(names) or settings.labels == "keep")


def _class_names(
    values: NDArray[Any], names: Sequence[str], settings: DataSettings, report: ReadingReport, place: str
) -> tuple[str, ...]:
    """Return the name of each class.  Raises InputError for too many, and for numbers beyond those with a name."""
    if len(values) > MOST_CLASSES:
        raise InputError(f"{place}: {len(values):,} classes; at most {MOST_CLASSES:,} are possible; {IGNORE}")
    if _keeps_numbers(values, names, settings):
        most = len(names) or MOST_CLASSES
        if len(values) and (values[0] < 0 or values[-1] >= most):
            of = f", as the data names {most} classes" if names else " (data.labels: keep)"
            raise InputError(f"{place}: labels are {values[0]} to {values[-1]}; 0 to {most - 1:,} are possible{of}")
        return tuple(names) or tuple(map(str, range(int(values[-1]) + 1 if len(values) else 0)))
    if values.dtype.kind != "U" and not np.array_equal(values, np.arange(len(values))):
        report.note(f"labels {_listed(values)} are numbered 0 to {len(values) - 1} in this order (data.labels)")
    return tuple(map(str, values.tolist()))


def _check_repeated(labels: Labels | None, place: str) -> None:
    kinds = 0 if labels is None else len(np.unique(labels))
    if labels is not None and len(labels) >= 16 and kinds > len(labels) / 2:
        raise InputError(
            f"{place}: {kinds:,} different labels for {len(labels):,} images are no classes; {IGNORE}, or "
            "data.labels=keep"
        )


def _listed(values: NDArray[Any]) -> str:
    listed = [str(value) for value in values.tolist()]
    return ", ".join(listed) if len(listed) <= 8 else f"{', '.join(listed[:4])}, ..., {listed[-1]}"


def note_rare_classes(train: Labels | None, held_out: Labels | None, report: ReadingReport) -> tuple[int, ...]:
    """Return the number of training images per class; note what is one class alone, rare, or held out only."""
    if train is None or not len(train):
        return ()
    counts = np.bincount(train, minlength=len(report.class_names)).tolist()
    there = [number for number, count in enumerate(counts) if count]
    if len(there) == 1:
        report.note(f"all training images are of one class ({_name(report, there[0])})")
    rare = [number for number in there if counts[number] < FEW_IMAGES]
    if rare and len(there) > 1:
        fewest = min(rare, key=lambda number: counts[number])
        report.note(
            f"{len(rare)} of {len(there)} classes have fewer than {FEW_IMAGES} training images (fewest: "
            f"{_name(report, fewest)}, {counts[fewest]})"
        )
    if held_out is not None and (only := sorted(set(held_out.tolist()) - set(there))):
        listed = ", ".join(_name(report, number) for number in only[:4])
        report.note(f"{len(only)} classes of the held-out images have no training image ({listed})")
    return tuple(counts)


def _name(report: ReadingReport, number: int) -> str:
    return shown(report.class_names[number]) if number < len(report.class_names) else str(number)
