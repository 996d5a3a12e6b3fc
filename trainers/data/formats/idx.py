"""Read `idx`: a directory of MNIST-style files."""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from pathlib import Path
from typing import TypeAlias

import numpy as np

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.decode import Split, Splits, to_shape
from stepfront.trainers.data.formats.file_tree import list_folder, suffix_of
from stepfront.trainers.data.pixels import check_size
from stepfront.trainers.data.reading_report import ReadingReport
from stepfront.trainers.data.spill_buffer import MemoryBudget, Pixels
from stepfront.trainers.data.splits import choose_held_out, split_files

_NAME = re.compile(r"(.*)-(images|labels)[-.]idx(\d)-(ubyte)(\.gz)?", re.I)


def read_idx(settings: DataSettings, budget: MemoryBudget) -> Splits:
    """Read train-images-idx3-ubyte and its like, gzipped or not; t10k, test or val are the held-out images.

    The files are complete arrays, so their sizes are checked before they are read.
    """
    directory, report = Path(str(settings.path)), budget.report
    if not directory.is_dir():
        raise InputError(f"data.path {directory} is not a directory; idx data are a directory of MNIST-style files")
    files = _files(directory, report)
    images = sorted(prefix for prefix, role in files if role == "images")
    kinds = split_files(images, settings)
    roles = choose_held_out(kinds)
    chosen: dict[str, str] = {}
    for prefix, kind in zip(images, kinds, strict=True):
        report.use(roles[kind], prefix)
        if roles[kind] in chosen and roles[kind] != "unused":
            raise InputError(
                f"{directory} has several files of images for one split ({chosen[roles[kind]]}, "
                f"{prefix}); name the folder of one, or set data.splits"
            )
        chosen[roles[kind]] = prefix
    if "train" not in chosen:
        raise InputError(f"no idx images in {directory}; expected train-images-idx3-ubyte, or the same with .gz")
    report.unit = "images and other files" if report.left_out else "images"
    train, held_out = (_split(directory, files, chosen.get(r), settings, report) for r in ("train", "held_out"))
    assert train is not None
    return train, held_out


_Files: TypeAlias = dict[tuple[str, str], Path]


def _files(directory: Path, report: ReadingReport) -> _Files:
    """Return the idx files by what stands before their role, and by their role; one that is not gzipped goes first."""
    found: _Files = {}
    for name in list_folder(directory, report):
        match = _NAME.fullmatch(name)
        if match is None:
            report.leave_out(suffix_of(name), name)
        else:
            report.found -= 1  # the images in it are counted
            found.setdefault((match[1], match[2].lower()), directory / name)
    return found


def _split(
    directory: Path,
    files: dict[tuple[str, str], Path],
    prefix: str | None,
    settings: DataSettings,
    report: ReadingReport,
) -> Split | None:
    if prefix is None:
        return None
    images = _decode_idx(files[prefix, "images"], 3, settings)
    report.found += len(images)
    labels = _decode_idx(files[prefix, "labels"], 1, settings) if (prefix, "labels") in files else None
    if labels is not None and len(labels) != len(images):
        raise InputError(f"{directory}: {len(images)} {prefix} images but {len(labels)} labels")
    return to_shape(images[:, None], settings, str(directory)), None if labels is None else labels.astype(np.int64)


def _decode_idx(path: Path, axes: int, settings: DataSettings) -> Pixels:
    header = 4 + 4 * axes
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb") as file:
            head = file.read(header)
            if head[:4] != bytes((0, 0, 8, axes)) or len(head) < header:
                raise InputError(
                    f"{path} is not an idx file of bytes with {axes} axes (its header is {head[:4].hex() or 'empty'})"
                )
            shape = struct.unpack(f">{axes}I", head[4:])
            expected = int(np.prod([int(side) for side in shape], dtype=object))
            check_size(expected, settings, str(path))
            raw = file.read(expected + 1)
            surplus = len(raw) - expected
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged: {error}") from None
    if surplus:
        raise InputError(f"{path} is incomplete: {len(raw)} of {expected} bytes")
    # A copy, as torch warns about read-only arrays.
    return np.frombuffer(raw, np.uint8).reshape(shape).copy()
