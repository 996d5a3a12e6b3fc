"""Read the wanted members of a tar archive, gzipped or not, and refuse an incomplete archive."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Self

from stepfront.errors import InputError, first_line

_END_BYTES = 1024  # a complete tar ends in at least two blocks of zeros
_MOST_HEADER_BYTES = 1 << 20
_MOST_EMPTY_READS = 16
_HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)

Wanted = Callable[[tarfile.TarInfo], bool]


def tar_members(path: Path, wanted: Wanted, most_bytes: int) -> Iterator[tuple[str, bytes | None]]:
    """Yield name and bytes of each member in `path` that is wanted, in the archive's order; None where it is too large.

    `wanted` is asked about every member, links and folders too.  Nothing is extracted to the disk.  Raises InputError
    when it is not a tar archive, damaged or incomplete: tarfile itself reports no error where a header is missing.
    """
    try:
        with open(path, "rb") as file:
            gzipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if gzipped else open(path, "rb") as stream:
            tracked = _TailTracker(stream)
            with tarfile.open(fileobj=tracked, mode="r|", tarinfo=_CheckedHeader) as archive:  # type: ignore[call-overload]  # it only reads
                for member in archive:
                    archive.members.clear()  # tarfile would keep a record of each
                    if wanted(member) and member.isreg():
                        yield member.name, _content(archive, member, most_bytes)
            while tracked.read(1 << 20):
                pass
    except (tarfile.TarError, zlib.error, OSError, EOFError, ValueError, OverflowError) as error:
        raise InputError(f"{path} is not a complete tar archive: {first_line(error)}") from None
    if tracked.tail.strip(b"\0") or len(tracked.tail) < _END_BYTES:
        raise InputError(f"{path} is not a complete tar archive: its end mark is missing")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, most_bytes: int) -> bytes | None:
    if member.size > most_bytes:  # a sparse member may claim any size
        return None
    file = archive.extractfile(member)
    return b"" if file is None else file.read()


class _CheckedHeader(tarfile.TarInfo):
    """A header that is refused where its name or attributes alone would fill the memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Return the header of a block.  Raises tarfile.ReadError for an enormous one."""
        header = super().frombuf(buf, encoding, errors)
        if header.type in _HEADERS and header.size > _MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {header.size:,} bytes")
        return header


class _TailTracker:
    """A stream that remembers its last bytes, and ends a reader that goes on behind its end.

    tarfile skips a member by reading it block by block, so that a false size of a terabyte would take minutes.
    """

    def __init__(self, stream: gzip.GzipFile | BufferedReader) -> None:
        self._stream, self.tail, self._empty = stream, b"", 0

    def read(self, size: int) -> bytes:
        block = self._stream.read(size)
        self._empty = 0 if block else self._empty + 1
        if self._empty > _MOST_EMPTY_READS:
            raise EOFError("it ends within a member")
        self.tail = (self.tail + block)[-_END_BYTES:]
        return block
