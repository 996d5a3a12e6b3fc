"""Read labels of pictures from metadata.csv or metadata.jsonl beside them, as in Hugging Face's imagefolder."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.pixels import MOST_FILE_BYTES
from stepfront.trainers.data.reading_report import ReadingReport, shown

NAMES = ("metadata.csv", "metadata.jsonl")
FILE_COLUMN = "file_name"
LABEL_COLUMNS = ("label", "labels", "fine_label")
_TABLES = (".csv", ".tsv", ".json", ".jsonl")

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Labelled:
    """The pictures that have a row, in their order, and the label of each by its name."""

    names: list[str]
    labels: dict[str, Any]


def is_metadata(name: str) -> bool:
    """Return whether a file is called metadata.csv or metadata.jsonl."""
    return name.rpartition("/")[2].lower() in NAMES


def read_labels(
    pictures: Sequence[str],
    files: Sequence[str],
    content: Callable[[str], bytes],
    settings: DataSettings,
    report: ReadingReport,
    place: str,
) -> Labelled | None:
    """Return the labels that metadata files give to pictures; None where they give none.

    A row names a picture from the file's own folder, in the column file_name.  Its label is in the column of
    `data.label_key`, or in label, labels or fine_label.  Pictures without a row are left out and counted.  Raises
    InputError for a file that can't be read, and for a picture with two rows.
    """
    tables = [name for name in files if is_metadata(name)]
    labels: dict[str, Any] = {}
    for name in tables:
        where = f"{place}: {shown(name)}"
        column = None if settings.labels == "ignore" else _label_column(rows := _rows(content(name), where), settings)
        if column is None:
            _say_unread(name, [] if settings.labels == "ignore" else rows, report)
            continue
        report.found -= 1  # it is part of its pictures
        _add(labels, rows, column, name.rpartition("/")[0], where)
    if not labels:
        return None
    known = set(pictures)
    for name in pictures:
        if name not in labels:
            report.leave_out("without a row in a metadata file", name)
    if missing := [name for name in labels if name not in known]:
        report.note(f"{len(missing):,} rows of metadata files name no picture that is read: first {shown(missing[0])}")
    report.note(f"labels are read from {shown(tables[0])}{f' and {len(tables) - 1} more' if tables[1:] else ''}")
    return Labelled([name for name in pictures if name in labels], labels)


def unread_table(report: ReadingReport) -> None:
    """Note that pictures without labels lie beside a table that may hold them."""
    for suffix in _TABLES:
        _, first = report.left_out.get(suffix, report.left_out.get(f"{suffix} files", (0, "")))
        if first:
            report.note(
                f"{first} is not read; where it holds labels, call it metadata.csv or metadata.jsonl, with "
                f"{FILE_COLUMN} and label in each row"
            )
            return


def _say_unread(name: str, rows: Rows, report: ReadingReport) -> None:
    report.leave_out(f"{name[name.rfind('.') :].lower()} files", name)
    if rows and FILE_COLUMN in rows[0]:
        others = ", ".join(shown(key) for key in rows[0] if key != FILE_COLUMN) or "no other"
        report.note(
            f"{shown(name)} has no column {', '.join(LABEL_COLUMNS[:-1])} or {LABEL_COLUMNS[-1]}; data.label_key names "
            f"the one of classes (it has: {others})"
        )
    elif rows:
        report.note(f"{shown(name)} has no column {FILE_COLUMN}, so its rows are not read")


def _label_column(rows: Rows, settings: DataSettings) -> str | None:
    if not rows or FILE_COLUMN not in rows[0]:
        return None
    possible = LABEL_COLUMNS if settings.label_key is None else (settings.label_key,)
    return next((key for key in possible if key in rows[0]), None)


def _add(labels: dict[str, Any], rows: Rows, column: str, folder: str, where: str) -> None:
    for number, row in enumerate(rows, start=1):
        file = row.get(FILE_COLUMN)
        if not isinstance(file, str) or not file:
            raise InputError(f"{where}, row {number} names no file in {FILE_COLUMN}; give each row its picture")
        picture = "/".join(part for part in (folder, file.replace("\\", "/").removeprefix("./")) if part)
        if picture in labels:
            raise InputError(f"{where}, row {number}: {shown(file)} has a row already; one label per picture needed")
        if row.get(column) in (None, ""):
            raise InputError(f"{where}, row {number}: {shown(file)} has no {column}; give it one, or leave out the row")
        labels[picture] = row[column]


def _rows(content: bytes, where: str) -> Rows:
    if len(content) > MOST_FILE_BYTES:
        raise InputError(f"{where} has {len(content):,} bytes; at most {MOST_FILE_BYTES:,} are read")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    return _lines(text, where) if where.lower().endswith(".jsonl") else _table(text, where)


def _table(text: str, where: str) -> Rows:
    try:
        return list(csv.DictReader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise InputError(f"{where} is not a complete CSV file: {error}") from None


def _lines(text: str, where: str) -> Rows:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):  # JSON may hold other ends of lines as characters
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}, line {number} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise InputError(f'{where}, line {number} is not an object such as {{"{FILE_COLUMN}": ..., "label": ...}}')
        rows.append(row)
    return rows
