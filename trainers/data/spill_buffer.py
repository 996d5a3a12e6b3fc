"""Where decoded pixels are gathered: bytes in; one array out, in memory up to a limit, else mapped from a file."""

from __future__ import annotations

import mmap
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.uint8]

Progress = Callable[[int, int], None]
"""Told images done, and how many there are (an estimate where no index says)."""

_CHUNK = 1 << 22


class Room:
    """Memory for `most_bytes` of pixels, and files for what goes beyond.

    `begin` gives the files' folder when the first is needed; what lies there at the end is deleted.
    """

    def __init__(
        self, most_bytes: float, begin: Callable[[], Path], progress: Progress = lambda done, total: None
    ) -> None:
        self.most_bytes, self.progress = most_bytes, progress
        self.folder: Path | None = None
        self.held = 0
        self._begin, self._files = begin, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def file(self) -> BinaryIO:
        """A new file to write to."""
        self.folder = self.folder or self._begin()
        self._files += 1
        return open(self.folder / f"{self._files}.raw", "wb")


class Pile:
    """Bytes in the order in which they were added."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._buffer = bytearray()  # grows in place: a list to be joined would need the memory twice
        self._file: BinaryIO | None = None
        self.size = 0

    def add(self, content: bytes) -> None:
        """Takes more bytes in."""
        if self._file is None and self._room.held + len(content) > self._room.most_bytes:
            self._file = self._room.file()
            self._file.write(self._buffer)
            self._forget()
        if self._file is not None:
            self._file.write(content)
        else:
            self._buffer += content
            self._room.held += len(content)
        self.size += len(content)

    def array(self) -> Pixels:
        """All bytes so far, flat; nothing can be added any more."""
        if self._file is None:
            return np.frombuffer(self._buffer, np.uint8)
        self._file.close()
        return np.memmap(self._file.name, np.uint8, mode="r", shape=(self.size,))

    def emptied(self, multiple: int = 1) -> Iterator[bytes]:
        """All bytes in pieces, each a multiple of so many; the pile is gone afterwards."""
        whole, count = self.array(), max(1, _CHUNK // multiple) * multiple
        for first in range(0, self.size, count):
            yield whole[first : first + count].tobytes()
            let_go(whole)
        if self._file is not None:
            Path(self._file.name).unlink()
        del whole
        self._forget()

    def _forget(self) -> None:
        self._room.held -= len(self._buffer)
        self._buffer = bytearray()


def blocks(images: Pixels, count: int) -> Iterator[Pixels]:
    """The images `count` at a time; of images in a mapped file no more than that is ever resident."""
    for first in range(0, len(images), count):
        yield images[first : first + count]
        let_go(images)


def let_go(images: Pixels) -> None:
    """Unloads what was read of a mapped file: it is in the system's cache of files, and need not be this process's."""
    mapped = getattr(images, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
