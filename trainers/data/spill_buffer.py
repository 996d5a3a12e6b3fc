"""Gather decoded pixels into one array, in memory up to a limit and else in a file that is mapped."""

from __future__ import annotations

import mmap
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stepfront.trainers.data.reading_report import ReadingReport

Pixels: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.int64]

Progress = Callable[[int, int], None]
"""Called with the number of decoded images and of all images, which is an estimate where no index gives it."""

_CHUNK_BYTES = 1 << 22


class MemoryBudget:
    """The memory that all buffers of one reading share, a folder of files for what exceeds it, and its one report.

    `begin` makes that folder when the first file is needed.  What is in it on exit is deleted.
    """

    def __init__(
        self,
        most_bytes: float,
        begin: Callable[[], Path],
        progress: Progress = lambda done, total: None,
        report: ReadingReport | None = None,
    ) -> None:
        self.most_bytes, self.progress = most_bytes, progress
        self.report = ReadingReport() if report is None else report
        self.folder: Path | None = None
        self.used = 0
        self._begin, self._files = begin, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def open_file(self) -> BinaryIO:
        """Return a new file to write to."""
        self.folder = self.folder or self._begin()
        self._files += 1
        return open(self.folder / f"{self._files}.raw", "wb")


class SpillBuffer:
    """Bytes in the order in which they were added; they move to a file when the budget is used up."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._buffer = bytearray()  # grows in place: joining a list would need the memory twice
        self._file: BinaryIO | None = None
        self.size = 0

    def add(self, content: bytes) -> None:
        """Append bytes."""
        if self._file is None and self._budget.used + len(content) > self._budget.most_bytes:
            self._file = self._budget.open_file()
            self._file.write(self._buffer)
            self._free_memory()
        if self._file is not None:
            self._file.write(content)
        else:
            self._buffer += content
            self._budget.used += len(content)
        self.size += len(content)

    def array(self) -> Pixels:
        """Return all bytes as a flat array.  Nothing can be added afterwards."""
        if self._file is None:
            return np.frombuffer(self._buffer, np.uint8)
        self._file.close()
        return np.memmap(self._file.name, np.uint8, mode="r", shape=(self.size,))

    def drain(self, multiple: int = 1) -> Iterator[bytes]:
        """Yield all bytes in pieces whose sizes are multiples of `multiple`.  The buffer is empty afterwards."""
        content, count = self.array(), max(1, _CHUNK_BYTES // multiple) * multiple
        for first in range(0, self.size, count):
            yield content[first : first + count].tobytes()
            release_pages(content)
        if self._file is not None:
            Path(self._file.name).unlink()
        del content
        self._free_memory()

    def _free_memory(self) -> None:
        self._budget.used -= len(self._buffer)
        self._buffer = bytearray()


def blocks(images: Pixels, count: int) -> Iterator[Pixels]:
    """Yield the images `count` at a time.  Of a mapped file no more than one block is ever resident."""
    for first in range(0, len(images), count):
        yield images[first : first + count]
        release_pages(images)


def release_pages(images: Pixels) -> None:
    """Unload what was read of a mapped file: the system's file cache keeps it, this process need not."""
    mapped = getattr(images, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
