"""Read `parquet`: tables of image files' bytes, as dataset hubs ship them; one file or a folder of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from stepfront.errors import InputError, first_line
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.decode import Splits
from stepfront.trainers.data.formats.file_tree import find_shards
from stepfront.trainers.data.formats.pictures import Picture, read_pictures, split_inside
from stepfront.trainers.data.pixels import BadImageError, check_size
from stepfront.trainers.data.reading_report import ReadingReport, shown
from stepfront.trainers.data.spill_buffer import MemoryBudget

_IMAGES = ("image", "img")
_LABELS = ("label", "labels", "fine_label")
_SPLITS = ("split", "subset", "partition")
_ROWS = 256
SUFFIX = ".parquet"


class _Columns(NamedTuple):
    image: str
    label: str | None
    class_names: tuple[str, ...]


def read_parquet(settings: DataSettings, budget: MemoryBudget) -> Splits:
    """Read the tables' images and labels.

    Images are in the column image or img, or in the only one that holds images, as {bytes, path} or as the bytes
    themselves.  Labels are in the column label, labels or fine_label, or in the only one of classes.
    """
    path, report = Path(str(settings.path)), budget.report
    shards = find_shards(path, (SUFFIX,), settings, report)
    report.unit = "rows and other files" if report.left_out else "rows"
    class_names: tuple[str, ...] = ()
    pictures: list[list[Picture]] = []
    for files in (shards.train, shards.held_out):
        pictures.append([])
        for file in files:
            rows, names = _listed(file, settings, report)
            pictures[-1] += rows
            class_names = class_names or names

    def contents(wanted: Sequence[Picture]) -> Iterator[bytes | BadImageError]:
        for (file, column), chosen in groupby(wanted, key=lambda picture: picture.place[:2]):
            yield from _contents(file, column, [picture.place[2] for picture in chosen], settings)

    train, held_out = pictures
    if not held_out:
        train, held_out = split_inside(train, [picture.place[3] for picture in train], settings, report)
    return read_pictures(train, held_out or None, contents, settings, budget, class_names)


def _listed(file: Path, settings: DataSettings, report: ReadingReport) -> tuple[list[Picture], tuple[str, ...]]:
    """Return the rows of a table with their labels, without the images, and the names of the classes."""
    with _opened(file) as table:
        columns = _columns(file, table.schema_arrow, settings, report)
        count = int(table.metadata.num_rows)
        labels: list[Any] = [None] * count
        if columns.label is not None and settings.labels != "ignore":
            labels = table.read(columns=[columns.label], use_threads=False).column(columns.label).to_pylist()
        split = next((name for name in table.schema_arrow.names if name.lower() in _SPLITS), None)
        said: list[Any] = [""] * count
        if split is not None:
            said = table.read(columns=[split], use_threads=False).column(split).to_pylist()
    report.found += count
    name = "" if file == Path(str(settings.path)) else f"{file.name}: "
    rows = [Picture(f"{name}row {n}", (file, columns.image, n, str(said[n])), label) for n, label in enumerate(labels)]
    return rows, columns.class_names


def _contents(file: Path, column: str, numbers: list[int], settings: DataSettings) -> Iterator[bytes | BadImageError]:
    """Yield the images of these rows, which ascend, with few rows in memory at a time."""
    with _opened(file) as table:
        for group in range(table.metadata.num_row_groups):
            for part in range(table.metadata.num_columns):
                facts = table.metadata.row_group(group).column(part)
                if facts.path_in_schema.split(".")[0] == column:
                    check_size(facts.total_uncompressed_size, settings, f"{file}: column {column}")
        wanted, first = iter(numbers), 0
        number = next(wanted, None)
        for batch in table.iter_batches(_ROWS, columns=[column], use_threads=False):
            images = batch.column(column)
            while number is not None and number < first + len(batch):
                yield _bytes(images[number - first].as_py())
                number = next(wanted, None)
            first += len(batch)


def _bytes(image: Any) -> bytes | BadImageError:
    content = image.get("bytes") if isinstance(image, dict) else image
    if isinstance(content, bytes):
        return content
    return BadImageError("holds no bytes of an image; tables that hold paths of image files only can't be read")


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            yield table
    except (pyarrow.ArrowException, OSError) as error:
        line = first_line(error)
        raise InputError(f"{file} is not a complete Parquet file: {line}") from None


def _columns(file: Path, schema: Any, settings: DataSettings, report: ReadingReport) -> _Columns:
    """Return the image and the label column.  Raises InputError where they can't be told."""
    features = _features(schema)
    image = settings.image_key or _image_column(file, schema, features)
    if image not in schema.names:
        raise InputError(f"{file} has no column {image} (data.image_key); it has: {', '.join(schema.names)}")
    label = settings.label_key or _label_column(schema, features)
    if label is not None and label not in schema.names:
        raise InputError(f"{file} has no column {label} (data.label_key); it has: {', '.join(schema.names)}")
    others = [shown(name) for name in schema.names if name not in (image, label)]
    if others:
        more = f" and {len(others) - 6} more" if len(others) > 6 else ""
        report.note(f"columns that are not read: {', '.join(others[:6])}{more}")
    names = features.get(label or "", {}).get("names") or ()
    if isinstance(names, dict):
        names = names.values()
    return _Columns(image, label, tuple(map(str, names)))


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """Return what the datasets library has written about each column: `_type`, and `names` of classes."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: value for name, value in features.items() if isinstance(value, dict)}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _image_column(file: Path, schema: Any, features: dict[str, dict[str, Any]]) -> str:
    import pyarrow

    known = [name for name in _IMAGES if name in schema.names]
    if known:
        return known[0]
    typed = [name for name in schema.names if features.get(name, {}).get("_type") == "Image"]
    found = typed or [
        field.name
        for field in schema
        if pyarrow.types.is_binary(field.type)
        or pyarrow.types.is_large_binary(field.type)
        or (pyarrow.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)
    ]
    if len(found) == 1:
        return found[0]
    which = (
        f"several that may hold images ({', '.join(found)}); set data.image_key"
        if found
        else f"no column {' or '.join(_IMAGES)}"
    )
    raise InputError(f"{file} has {which}; it has: {', '.join(schema.names) or 'none'}")


def _label_column(schema: Any, features: dict[str, dict[str, Any]]) -> str | None:
    known = [name for name in _LABELS if name in schema.names]
    if known:
        return known[0]
    classes = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"]
    return classes[0] if len(classes) == 1 else None
