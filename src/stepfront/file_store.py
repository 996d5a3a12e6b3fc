"""Read and write the files below a URI, through pyarrow's file systems and those of fsspec."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stepfront.addresses import redacted, resolved, shown
from stepfront.errors import InputError, first_line

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_WITHOUT_FOLDERS = ("s3", "gcs", "abfs")
"""File systems, by pyarrow's name, in which folders need not be created."""

_S3_COPY_LIMIT = 5 * 10**9
"""Bytes that S3 copies in one request at most, and pyarrow's move makes one."""

T = TypeVar("T")


class FileStore:
    """The files below a URI such as s3://bucket/runs/digits, whose `${NAME}`s are read from the environment.

    All methods, and the constructor, raise InputError of one line when the store refuses or can't be reached.
    """

    def __init__(self, uri: str) -> None:
        """Open the file system; also raises InputError when nothing installed knows its scheme."""
        self._uri = shown(uri)
        self._files, self._root = self._try("open", lambda: _open(resolved(uri)))

    def names(self) -> list[str]:
        """Return the paths of all files, relative to the URI."""
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(self._root, allow_not_found=True, recursive=True)
        found = self._try("list", lambda: self._files.get_file_info(selector))
        root = self._root.strip("/") + "/"
        return sorted(one.path.lstrip("/").removeprefix(root) for one in found if one.type == FileType.File)

    def download(self, name: str, to: Path) -> None:
        """Copy a file of the store to a local path."""
        from pyarrow import fs

        at = self._at(name)
        self._try(f"read {name} of", lambda: fs.copy_files(at, str(to), self._files, fs.LocalFileSystem()))

    def upload(self, path: Path, name: str) -> None:
        """Copy a local file to the store; what stood there stays until the new file is complete."""
        from pyarrow import fs

        def copy(place: str) -> None:
            fs.copy_files(str(path), place, fs.LocalFileSystem(), self._files)

        self._write(name, copy, path.stat().st_size)

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Return the mapping in a JSON file, or None when the file is missing or damaged."""

        def read() -> bytes:
            try:
                with self._files.open_input_stream(self._at(name)) as source:
                    return bytes(source.read())
            except FileNotFoundError:
                return b""

        text = self._try(f"read {name} of", read)
        with contextlib.suppress(ValueError):
            content = json.loads(text)
            return content if isinstance(content, dict) else None
        return None

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a mapping to a JSON file, as `upload` does."""
        text = json.dumps(content, indent=1).encode()

        def write(place: str) -> None:
            with self._files.open_output_stream(place) as target:
                target.write(text)

        self._write(name, write, len(text))

    def delete(self, name: str) -> None:
        """Delete a file; nothing happens when it is missing."""

        def delete() -> None:
            with contextlib.suppress(FileNotFoundError):
                self._files.delete_file(self._at(name))

        self._try(f"delete {name} of", delete)

    def _write(self, name: str, write: Callable[[str], None], size: int) -> None:
        """Write beside the place and move, on object stores too.

        An object appears only when its stream is closed, but an exception closes the stream as well.  Half a file would
        then stand in the place of the complete one.
        """
        at = self._at(name)
        folder, _, last = at.rpartition("/")
        beside = f"{folder}/.{last}.part"

        def write_and_move() -> None:
            kind = self._files.type_name
            if kind not in _WITHOUT_FOLDERS:
                self._files.create_dir(folder, recursive=True)
            if kind == "s3" and size > _S3_COPY_LIMIT:
                write(at)
            else:
                write(beside)
                self._files.move(beside, at)

        self._try(f"write {name} to", write_and_move)

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _try(self, what: str, action: Callable[[], T]) -> T:
        try:
            return action()
        except InputError:
            raise
        except Exception as error:  # each file system raises errors of its own
            raise InputError(f"can't {what} {self._uri}: {redacted(first_line(error))[:300]}") from None


def _open(uri: str) -> tuple[FileSystem, str]:
    """Return a file system of pyarrow (file, s3, gs, abfs, hdfs) or else of fsspec, and the path in it."""
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    try:
        return FileSystem.from_uri(uri)
    except ArrowInvalid as error:
        if "type" not in str(error):
            raise
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(uri)
    except ValueError:
        raise InputError(
            f"no file system is known for {uri.partition('://')[0]}://; possible: file, s3, gs, abfs, hdfs, and those "
            "of fsspec whose packages are installed"
        ) from None
    return PyFileSystem(FSSpecHandler(system)), path
