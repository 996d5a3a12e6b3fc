"""Read the wanted members of a tar archive, gzipped or not, and refuse an incomplete archive."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path

from stepfront.errors import InputError

_END_BYTES = 1024  # a complete tar ends in at least two blocks of zeros


def tar_members(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each file in `path` whose name is wanted, in the archive's order.

    Nothing is extracted to the disk.  Raises InputError when it is not a tar archive, damaged or incomplete: tarfile
    itself reports no error where a header is missing.
    """
    try:
        with open(path, "rb") as file:
            gzipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if gzipped else open(path, "rb") as stream:
            tracked = _TailTracker(stream)
            with tarfile.open(fileobj=tracked, mode="r|") as archive:  # type: ignore[call-overload]  # it only reads
                for member in archive:
                    if wanted(member.name) and (content := archive.extractfile(member)):
                        yield member.name, content.read()
            while tracked.read(1 << 20):
                pass
    except (tarfile.TarError, zlib.error, OSError, EOFError) as error:
        raise InputError(f"{path} is not a complete tar archive: {error}") from None
    if tracked.tail.strip(b"\0") or len(tracked.tail) < _END_BYTES:
        raise InputError(f"{path} is not a complete tar archive: its end mark is missing")


class _TailTracker:
    """A stream that remembers its last bytes."""

    def __init__(self, stream: gzip.GzipFile | BufferedReader) -> None:
        self._stream, self.tail = stream, b""

    def read(self, size: int) -> bytes:
        block = self._stream.read(size)
        self.tail = (self.tail + block)[-_END_BYTES:]
        return block
