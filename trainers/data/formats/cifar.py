"""Read `cifar`: CIFAR-10 and CIFAR-100 (Krizhevsky 2009) as they are distributed.

Batches are in python or binary form, in the .tar.gz or in the folder that it holds.  The python batches are pickles.
They are read without ever calling what a pickle names: the result holds arrays of bytes, byte strings, numbers, lists,
tuples and dictionaries only.
"""

from __future__ import annotations

import io
import pickle
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np

from stepfront.errors import InputError, first_line
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.decode import Split, Splits, to_shape
from stepfront.trainers.data.formats.archive import tar_members
from stepfront.trainers.data.formats.file_tree import list_folder, suffix_of, system_name
from stepfront.trainers.data.labels import settle_labels
from stepfront.trainers.data.pixels import MOST_FILE_BYTES, check_size
from stepfront.trainers.data.reading_report import ReadingReport, shown
from stepfront.trainers.data.spill_buffer import Labels, MemoryBudget, Pixels, SpillBuffer
from stepfront.trainers.data.splits import choose_held_out, split_files

_BATCH = re.compile(r"(data_batch_\d+|test_batch|train|test)(\.bin)?")
_NAMES = re.compile(r"batches\.meta(\.txt)?|meta|fine_label_names\.txt")
_ROW = 3 * 32 * 32
_BLOCK_IMAGES = 1000


def read_cifar(settings: DataSettings, budget: MemoryBudget) -> Splits:
    """Read the training batches in order, and the test batch as held-out images; CIFAR-100 has its fine labels."""
    path = Path(str(settings.path))
    if not path.exists():
        raise InputError(f"no data at {path}")
    batches: dict[str, _Batch] = {}
    folders = set()
    class_names: tuple[str, ...] = ()
    for name, content in _batch_files(path, settings, budget.report):
        place = f"{path}: {name}"
        if _NAMES.fullmatch(name.name):
            class_names = _class_names(content) or class_names
            continue
        folders.add(name.parent)
        split = _binary(content, name, place) if name.suffix else _pickled(content, place)
        batches[name.stem] = _Batch.of(split, settings, budget, path)
    if len(folders) > 1:
        raise InputError(f"{path} holds more than one CIFAR: {', '.join(sorted(map(str, folders)))}; name one of them")
    ordered = sorted(batches, key=_number)
    kinds = split_files(ordered, settings)
    roles = choose_held_out(kinds)
    by_role: dict[str, list[_Batch]] = {"train": [], "held_out": [], "unused": []}
    for stem, kind in zip(ordered, kinds, strict=True):
        by_role[roles[kind]].append(batches[stem])
        budget.report.use(roles[kind], stem, len(batches[stem].labels))
    if not by_role["train"]:
        raise InputError(
            f"no CIFAR batches in {path}; expected data_batch_1 (or train) and test_batch (or test), or the same with "
            ".bin, in a folder or a .tar.gz"
        )
    train, test = _joined(by_role["train"], budget), by_role["held_out"]
    return _with_classes(train, _joined(test, budget) if test else None, class_names, settings, budget)


def _with_classes(
    train: Split, held_out: Split | None, names: tuple[str, ...], settings: DataSettings, budget: MemoryBudget
) -> Splits:
    """Settle the labels, which are those of 10 or of 100 classes whether all of them occur or not."""
    both = [split[1] for split in (train, held_out) if split is not None and split[1] is not None]
    most = max((int(labels.max(initial=0)) for labels in both), default=0)
    known = names if len(names) > most else tuple(map(str, range(10 if most < 10 else max(100, most + 1))))
    budget.report.unit = "rows of batches and other files" if budget.report.left_out else "rows of batches"
    budget.report.found += len(train[0]) + (len(held_out[0]) if held_out else 0)
    second = None if held_out is None else held_out[1]
    labels = settle_labels(train[1], second, settings, budget.report, str(settings.path), known)
    return (train[0], labels[0]), None if held_out is None else (held_out[0], labels[1])


def is_batch_name(name: str) -> bool:
    """Return whether a file of this name is read."""
    return bool(_BATCH.fullmatch(name))


def _number(name: str) -> int:
    return int("".join(filter(str.isdigit, name)) or 0)


@dataclass
class _Batch:
    """A batch in the settings' shape; an archive holds the batches in any order, so they wait for each other."""

    pixels: SpillBuffer
    shape: tuple[int, ...]
    labels: Labels

    @staticmethod
    def of(split: tuple[Pixels, Labels], settings: DataSettings, budget: MemoryBudget, path: Path) -> _Batch:
        images, labels = split
        buffer, shape = SpillBuffer(budget), images.shape[1:]
        for first in range(0, len(images), _BLOCK_IMAGES):
            block = to_shape(images[first : first + _BLOCK_IMAGES], settings, str(path))
            buffer.add(block.tobytes())
            shape = block.shape[1:]
        return _Batch(buffer, shape, labels)


def _joined(batches: list[_Batch], budget: MemoryBudget) -> Split:
    joined = SpillBuffer(budget)
    for batch in batches:
        for content in batch.pixels.drain():
            joined.add(content)
    return joined.array().reshape(-1, *batches[0].shape), np.concatenate([batch.labels for batch in batches])


def _batch_files(path: Path, settings: DataSettings, report: ReadingReport) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield name and bytes of each batch and of the names of classes, one at a time; count the other files."""
    if path.is_dir():
        names = [name for name in list_folder(path, report) if _is_wanted(name, report)]
        report.found -= len(names)  # their rows are counted
        for name in names:
            check_size((path / name).stat().st_size, settings, str(path / name))
            yield PurePosixPath(name), (path / name).read_bytes()
        return

    def is_wanted(member: tarfile.TarInfo) -> bool:
        wanted = member.isreg() and _is_wanted(member.name, report)
        report.found += member.isreg() and not wanted
        return wanted

    for name, content in tar_members(path, is_wanted, MOST_FILE_BYTES):
        if content is None:
            raise InputError(f"{path}: {shown(name)} has more than 256 MB")
        yield PurePosixPath(name), content


def _is_wanted(name: str, report: ReadingReport) -> bool:
    last = name.rpartition("/")[2]
    wanted = is_batch_name(last) or bool(_NAMES.fullmatch(last))
    if not wanted:
        report.leave_out(system_name(name.removeprefix("./")) or suffix_of(name), name)
    return wanted


def _class_names(content: bytes) -> tuple[str, ...]:
    """Return the names of the classes in batches.meta, meta or a text file; none where it can't be read."""
    try:
        fields = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
        plain = {name.decode() if isinstance(name, bytes) else name: value for name, value in fields.items()}
        names = plain.get("fine_label_names") or plain["label_names"]
        return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)
    except Exception:  # the names are not needed
        lines = content.decode("utf-8", "replace").split()
        return tuple(lines) if lines and all(line.isidentifier() for line in lines) else ()


def _binary(content: bytes, name: PurePosixPath, place: str) -> tuple[Pixels, Labels]:
    """Read rows of a label and 3,072 pixels (CIFAR-10), or of a coarse and a fine label and the pixels (CIFAR-100)."""
    labels = 1 if "batch" in name.stem else 2
    if not content or len(content) % (labels + _ROW):
        raise InputError(
            f"{place} is incomplete: {len(content)} bytes are not a multiple of the row size {labels + _ROW}"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, labels + _ROW)
    return rows[:, labels:].reshape(-1, 3, 32, 32), rows[:, labels - 1].astype(np.int64)


def _pickled(content: bytes, place: str) -> tuple[Pixels, Labels]:
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
        fields = {name.decode() if isinstance(name, bytes) else name: value for name, value in batch.items()}
        labels = fields["fine_labels"] if "fine_labels" in fields else fields["labels"]
        return _rows(fields["data"], labels)
    except KeyError as error:
        raise InputError(f"{place} is not a CIFAR batch: it has no {error}") from None
    except Exception as error:  # a damaged pickle may raise anything
        line = first_line(error)
        raise InputError(f"{place} is not a CIFAR batch: {line}") from None


def _rows(data: object, labels: object) -> tuple[Pixels, Labels]:
    if not isinstance(data, _Array) or data.values.ndim != 2 or data.values.shape[1] != _ROW:
        raise ValueError(f"data is not an array [N, {_ROW}] of bytes")
    if not isinstance(labels, list) or not all(type(label) is int and label >= 0 for label in labels):
        raise ValueError("labels are not a list of numbers of at least 0")
    if len(labels) != len(data.values):
        raise ValueError(f"{len(data.values)} images but {len(labels)} labels")
    return data.values.reshape(-1, 3, 32, 32), np.array(labels, np.int64)


class _Type:
    """A stand-in for numpy.dtype and numpy.ndarray, which a pickle names but which are never made."""

    def __init__(self, name: object = "", *_: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and the like, which have no meaning for bytes."""


class _Array:
    """A stand-in for the array that a pickle describes; it takes the bytes."""

    values: Pixels

    def __init__(self, *_: object) -> None:
        """Ignore type, shape and letter of the empty array that numpy would make first."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_columns, raw = state
        if kind.name not in (b"u1", "u1"):
            raise ValueError(f"an array of {kind.name!r}, not of bytes")
        self.values = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if by_columns else "C")


def _encoded(text: str, encoding: str) -> bytes:
    # Byte strings in pickles that Python 3 wrote for Python 2.
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in {encoding!r}")
    return text.encode("latin1")


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that refuses every name but those of its own stand-ins."""

    _KNOWN: ClassVar[dict[tuple[str, str], object]] = {
        ("numpy", "dtype"): _Type,
        ("numpy", "ndarray"): _Type,
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("_codecs", "encode"): _encoded,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no batch of images needs")
        return self._KNOWN[module, name]
