"""Read `parquet`: tables of image files' bytes, as dataset hubs ship them; one file or a folder of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stepfront.errors import InputError, first_line
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.decode import ImageStack, Split, Splits
from stepfront.trainers.data.formats.shards import find_shards
from stepfront.trainers.data.spill_buffer import MemoryBudget

_IMAGES = ("image", "img")
_LABELS = ("label", "labels", "fine_label")
_ROWS = 256
SUFFIX = ".parquet"


def read_parquet(settings: DataSettings, budget: MemoryBudget) -> Splits:
    """Read the tables' images and labels.

    Images are in the column image or img, as {bytes, path} or as the bytes themselves.  Labels are in the column label,
    labels or fine_label, if there is one.
    """
    path = Path(str(settings.path))
    train, held_out = find_shards(path, (SUFFIX,))
    first = _gather(train, settings, path, budget, settings.limit)
    return first, _gather(held_out, settings, path, budget) if held_out else None


def _gather(
    files: list[Path], settings: DataSettings, path: Path, budget: MemoryBudget, limit: int | None = None
) -> Split:
    total = sum(map(_row_count, files))
    stack = ImageStack(settings, path, budget, total if limit is None else min(total, limit))
    for file in files:
        for number, (image, label) in enumerate(_rows(file)):
            if stack.count == limit:
                return stack.split()
            place = f"{file}: row {number}"
            content = image.get("bytes") if isinstance(image, dict) else image
            if not isinstance(content, bytes):
                raise InputError(
                    f"{place} holds no bytes of an image; tables that hold paths of image files only can't be read"
                )
            if label is not None and label < 0:
                raise InputError(f"{place} has the label {label}; a number of at least 0 needed")
            stack.add(content, place, label)
    return stack.split()


def _rows(file: Path) -> Iterator[tuple[Any, int | None]]:
    """Yield image and label of each row, with few rows in memory at a time."""
    with _opened(file) as table:
        image, label = _columns(file, table.schema_arrow)
        columns = [image] if label is None else [image, label]
        for batch in table.iter_batches(_ROWS, columns=columns, use_threads=False):
            labels = [None] * len(batch) if label is None else batch.column(label).to_pylist()
            yield from zip(batch.column(image).to_pylist(), labels, strict=True)


def _row_count(file: Path) -> int:
    with _opened(file) as table:
        return int(table.metadata.num_rows)


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


def _columns(file: Path, schema: Any) -> tuple[str, str | None]:
    """Return the names of the image and the label column.

    Raises InputError when there is no image column, or when labels are not whole numbers.
    """
    import pyarrow

    image = next((name for name in _IMAGES if name in schema.names), None)
    if image is None:
        raise InputError(f"{file} has no column {' or '.join(_IMAGES)}; it has: {', '.join(schema.names) or 'none'}")
    label = next((name for name in _LABELS if name in schema.names), None)
    if label is not None and not pyarrow.types.is_integer(schema.field(label).type):
        raise InputError(f"{file}: column {label} is {schema.field(label).type}; whole numbers needed")
    return image, label
