"""Files at a URI, through pyarrow or fsspec: an address in; whole files read and written, errors in one line, out."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stepfront.errors import InputError
from stepfront.search.addresses import hidden, resolved

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_OBJECTS = ("s3", "gcs", "abfs")
"""Where folders are not made."""

T = TypeVar("T")


class Store:
    """The files below a URI such as s3://bucket/runs/digits, whose `${NAME}`s are the environment's.

    Raises InputError for a scheme that nothing here knows, and wherever the store refuses or is away.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._system, self._root = self._try("open", lambda: _open(resolved(uri)))

    def names(self) -> list[str]:
        """All files, by their paths below the URI."""
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(self._root, allow_not_found=True, recursive=True)
        found = self._try("list", lambda: self._system.get_file_info(selector))
        root = self._root.strip("/") + "/"
        return sorted(one.path.lstrip("/").removeprefix(root) for one in found if one.type == FileType.File)

    def get(self, name: str, to: Path) -> None:
        """Downloads a file."""

        def copy() -> None:
            with self._system.open_input_stream(self._at(name)) as source, open(to, "wb") as target:
                shutil.copyfileobj(source, target)

        self._try(f"read {name} of", copy)

    def put(self, path: Path, name: str) -> None:
        """Uploads a file; until it is there whole, what was there stays."""
        with open(path, "rb") as source:
            self._try(f"write {name} to", lambda: self._write(name, partial(shutil.copyfileobj, source)))

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A small mapping; None where there is none, or none that can be read."""

        def read() -> bytes | None:
            try:
                with self._system.open_input_stream(self._at(name)) as source:
                    return bytes(source.read())
            except FileNotFoundError:
                return None

        text = self._try(f"read {name} of", read)
        with contextlib.suppress(ValueError):
            content = json.loads(text) if text is not None else None
            return content if isinstance(content, dict) else None
        return None

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Writes a small mapping."""
        text = json.dumps(content, indent=1).encode()
        self._try(f"write {name} to", lambda: self._write(name, lambda target: target.write(text)))

    def delete(self, name: str) -> None:
        """Deletes a file, where there is one."""

        def delete() -> None:
            with contextlib.suppress(FileNotFoundError):
                self._system.delete_file(self._at(name))

        self._try(f"delete {name} of", delete)

    def _write(self, name: str, write: Callable[[Any], Any]) -> None:
        at = self._at(name)
        folder, _, last = at.rpartition("/")
        if self._system.type_name not in _OBJECTS:
            self._system.create_dir(folder, recursive=True)
        # Object stores, too: a stream that an exception ends is closed all the same, and what was sent stands there.
        beside = f"{folder}/.{last}.part"
        with self._system.open_output_stream(beside) as target:
            write(target)
        self._system.move(beside, at)

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _try(self, what: str, action: Callable[[], T]) -> T:
        try:
            return action()
        except InputError:
            raise
        except Exception as error:  # each file system raises errors of its own
            line = next(iter(hidden(error).strip().splitlines()), "") or type(error).__name__
            raise InputError(f"can't {what} {hidden(self._uri)}: {line[:300]}") from None


def _open(uri: str) -> tuple[FileSystem, str]:
    """pyarrow's file systems (file, s3, gs, abfs, hdfs), then those that fsspec knows and has the package of."""
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    try:
        return FileSystem.from_uri(uri)
    except ArrowInvalid as error:
        import fsspec

        scheme = uri.partition("://")[0]
        if "type" not in str(error):
            raise
        try:
            system, path = fsspec.core.url_to_fs(uri)
        except ValueError:
            raise InputError(
                f"no file system is known for {scheme}://; possible: file, s3, gs, abfs, hdfs, and fsspec's with their "
                "packages installed"
            ) from None
        return PyFileSystem(FSSpecHandler(system)), path
