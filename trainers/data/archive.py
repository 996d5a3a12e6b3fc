"""Tar archives, gzipped or not -> the wanted members one at a time; one that was cut off is never taken as whole."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path

from stepfront.errors import InputError

_END = 1024  # a whole tar ends in at least two blocks of zeros


def tar_members(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each file in `path` whose name is wanted, in the archive's order; nothing is ever extracted.

    InputError when it is no tar archive, damaged, or cut off: tarfile ends in silence where a header is missing.
    """
    try:
        with open(path, "rb") as file:
            gzipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if gzipped else open(path, "rb") as stream:
            watched = _Watched(stream)
            with tarfile.open(fileobj=watched, mode="r|") as archive:  # type: ignore[call-overload]  # it only reads
                for member in archive:
                    if wanted(member.name) and (content := archive.extractfile(member)):
                        yield member.name, content.read()
            while watched.read(1 << 20):
                pass
    except (tarfile.TarError, zlib.error, OSError, EOFError) as error:
        raise InputError(f"{path} is not a whole tar archive: {error}") from None
    if watched.tail.strip(b"\0") or len(watched.tail) < _END:
        raise InputError(f"{path} is not a whole tar archive: it ends without the mark of its end")


class _Watched:
    """A stream of which the last bytes are remembered."""

    def __init__(self, stream: gzip.GzipFile | BufferedReader) -> None:
        self._stream, self.tail = stream, b""

    def read(self, size: int) -> bytes:
        block = self._stream.read(size)
        self.tail = (self.tail + block)[-_END:]
        return block
