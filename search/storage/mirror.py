"""A local copy of a run at a URI: a folder and a store in; each brought in line with the other, whole, out.

What changed at the URI since both last agreed is fetched; what changed here is brought there: the study first, through
SQLite's own backup, then the tables, so that no table there ever says more than the study beside it.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import shutil
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from stepfront.addresses import redacted
from stepfront.errors import InputError
from stepfront.file_store import FileStore
from stepfront.files import file_digest, read_json, write_atomically, write_json
from stepfront.search.storage.lease import LEASE_SECONDS, Lease
from stepfront.search.storage.lock import InUseError
from stepfront.trainers.networks.card import CARD_FILE

EVERY = 30.0
"""Seconds between two looks at what has changed: what a driver that is lost with its disk loses."""

MANIFEST, STATE = ".stepfront.json", ".stepfront-copy.json"


@dataclass
class Known:
    """A file as it was when copy and URI last agreed on it."""

    signature: list[int]
    digest: str


@dataclass
class State:
    """What a copy knows of its URI.  `copy` tells copies apart, `version` is that of the manifest, `pending` one that
    was about to be written: whether it was is not known."""

    copy: str = field(default_factory=lambda: uuid.uuid4().hex)
    version: str | None = None
    files: dict[str, Known] = field(default_factory=dict)
    pending: str | None = None


class Copy:
    """A folder and the URI that it belongs to."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri, self.folder = redacted(uri), folder
        self._store = FileStore(uri)
        folder.mkdir(parents=True, exist_ok=True)
        self._state = self._read_state()
        self._lease = Lease(self._store, self.uri, self._state.copy)

    # --- from the URI ------------------------------------------------------------------------------------------------

    def fetch(self, keep_changed: bool = True) -> bool:
        """Makes the copy as new as the URI; whether anything lies there.

        Where both have changed since they last agreed, what changed here is put aside, or written over.
        """
        manifest = self._store.read_json(MANIFEST)
        listed = {name for name in self._store.names() if _belongs(name)}
        if not listed:
            if self._state.version is not None:
                _log.warning(
                    "nothing lies at %s any more; what lies in %s is brought there again", self.uri, self.folder
                )
            self._state.version, self._state.files = (manifest or {}).get("version"), {}
            return False
        version, digests = (manifest or {}).get("version"), (manifest or {}).get("files", {})
        moved = manifest is None or version not in (self._state.version, self._state.pending)
        here = self._signatures()
        changed = self._changed(here)
        if moved and changed:
            if keep_changed:
                self._put_aside(changed)
            here = {name: one for name, one in here.items() if name not in changed}
        try:
            for name in sorted(listed, key=_order):
                known = self._known.get(name)
                if name in here and (not moved or (known is not None and known.digest == digests.get(name))):
                    continue
                self._download(name)
            if moved:
                for name in here.keys() - listed:
                    (self.folder / name).unlink(missing_ok=True)
                    self._known.pop(name, None)
            self._state.version, self._state.pending = version, None
        finally:
            self._write_state()  # what was fetched is not fetched again
        return True

    def _download(self, name: str) -> None:
        place = self.folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, lambda beside: self._store.download(name, beside))
        for ending in ("-wal", "-shm"):  # of the database that stood there
            place.with_name(place.name + ending).unlink(missing_ok=True)
        self._known[name] = Known(_signature(place), file_digest(place))

    def _put_aside(self, changed: Sequence[str]) -> None:
        beside = (self.folder.with_name(f"{self.folder.name}.aside-{n}") for n in itertools.count(1))
        aside = next(place for place in beside if not place.exists())
        for name in changed:
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            for ending in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(self.folder / f"{name}{ending}", aside / f"{name}{ending}")
        _log.warning("%s went on elsewhere; what was changed here alone is put aside in %s", self.uri, aside)

    # --- to the URI --------------------------------------------------------------------------------------------------

    def push(self) -> int:
        """Brings what has changed to the URI; how many files.  InputError when another driver has taken it over."""
        self._lease.renew()
        now = self._signatures()
        changed = self._changed(now)
        gone = self._known.keys() - now.keys()
        if not changed and not gone and self._state.version is not None and self._state.pending is None:
            return 0
        self._check_ours()
        staging = self.folder / f".staging-{os.getpid()}"
        try:
            # Tables are set aside before the study and brought after it: the study at the URI is never the older.
            for name in sorted(changed, key=_order, reverse=True):
                with contextlib.suppress(FileNotFoundError):  # it went away meanwhile: the next time tells
                    _snapshot(self.folder / name, staging / name)
            staged = [name for name in sorted(changed, key=_order) if (staging / name).exists()]
            for name in staged:
                digest = file_digest(staging / name)
                if name not in self._known or self._known[name].digest != digest:
                    self._store.upload(staging / name, name)
                self._known[name] = Known(now[name], digest)
            for name in gone:
                self._store.delete(name)
                del self._known[name]
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        self._state.pending = uuid.uuid4().hex
        self._write_state()
        files = {name: known.digest for name, known in sorted(self._known.items())}
        self._store.write_json(
            MANIFEST,
            {
                "version": self._state.pending,
                "written": datetime.now(UTC).isoformat(timespec="seconds"),
                "files": files,
            },
        )
        self._state.version, self._state.pending = self._state.pending, None
        self._write_state()
        return len(staged) + len(gone)

    def _check_ours(self) -> None:
        """A lease may have run out while this machine slept, and another driver have come and gone."""
        version = (self._store.read_json(MANIFEST) or {}).get("version")
        if version is not None and version not in (self._state.version, self._state.pending):
            raise InUseError(f"{self.uri} went on elsewhere")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds the lease, and renews it while files travel.  InputError when another driver has it."""
        self._write_state()  # the copy has its id before a lease says it
        self._lease.acquire()
        ending = threading.Event()

        def renew() -> None:
            while not ending.wait(LEASE_SECONDS / 5):
                with contextlib.suppress(InputError):  # the next push says what is wrong
                    self._lease.renew()

        thread = threading.Thread(target=renew, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()
            self._lease.release()

    @contextlib.contextmanager
    def brought_back(self) -> Iterator[None]:
        """Within, a thread brings changes to the URI; what is left is brought in the end, whatever happened."""
        ending = threading.Event()

        def watch() -> None:
            told = ""
            while not ending.wait(EVERY):
                try:
                    self.push()
                    told = ""
                except Exception as error:  # a store that is away must not end a search
                    if str(error) != told:
                        _log.warning("%s; what is not there yet lies in %s", told := str(error), self.folder)

        thread = threading.Thread(target=watch, name="remote", daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            ending.set()
            thread.join()
            try:
                self.push()
            except Exception as error:
                _log.warning("%s; what is not there yet lies in %s", error, self.folder)
            raise
        ending.set()
        thread.join()
        try:
            self.push()
        except InputError as error:
            raise InputError(
                f"{error}; what is not there yet lies in {self.folder}, and the next call brings it"
            ) from None

    # --- the copy ----------------------------------------------------------------------------------------------------

    @property
    def _known(self) -> dict[str, Known]:
        return self._state.files

    def _changed(self, now: Mapping[str, list[int]]) -> list[str]:
        """The files that are not as they were when copy and URI last agreed."""
        return [name for name, one in now.items() if name not in self._known or self._known[name].signature != one]

    def _signatures(self) -> dict[str, list[int]]:
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        names = {path.relative_to(self.folder).as_posix(): path for path in paths}
        return {name: _signature(path) for name, path in names.items() if _belongs(name)}

    def _read_state(self) -> State:
        path = self.folder / STATE
        if not path.exists():
            return State()
        try:
            content = read_json(path, "state of a copy")
            files = {name: Known(**known) for name, known in content["files"].items()}
            return State(content["copy"], content["version"], files, content.get("pending"))
        except (InputError, KeyError, TypeError, AttributeError):  # damaged: all is compared anew
            return State()

    def _write_state(self) -> None:
        write_json(self.folder / STATE, asdict(self._state) | {"uri": self.uri})


def _belongs(name: str) -> bool:
    """Whether a file is the run's: no lock, no log of a database, nothing half written."""
    last = name.rpartition("/")[2]
    hidden_part = any(part.startswith(".") for part in name.split("/"))
    return not hidden_part and not re.fullmatch(r"lock|.*\.lock|.*-(wal|shm|journal)", last)


def _order(name: str) -> tuple[int, str]:
    """Studies first; a supernet's card last: it is what says that a supernet is there."""
    last = name.rpartition("/")[2]
    return (0 if last.startswith("study.") else 2 if last == CARD_FILE else 1), name


def _signature(path: Path) -> list[int]:
    """Size and time of a file and, of a database, of its log."""
    found: list[int] = []
    for one in (path, path.with_name(path.name + "-wal")):
        with contextlib.suppress(FileNotFoundError):
            stat = one.stat()
            found += [stat.st_size, stat.st_mtime_ns]
    return found


def _snapshot(path: Path, to: Path) -> None:
    """The file as it is now.  Files are replaced, never written over, so a link keeps one; a database that is in use is
    backed up; one that was closed, and a journal, which grows, are copied."""
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".db" and not _closed(path) and _backed_up(path, to):
        return
    try:
        if path.suffix in (".db", ".journal"):
            shutil.copyfile(path, to)
        else:
            os.link(path, to)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without links
        shutil.copyfile(path, to)


def _closed(path: Path) -> bool:
    """Whether a database with a write-ahead log has none now: it is one file, which to open would change."""
    with open(path, "rb") as file:
        header = file.read(20)
    return header[18:20] == b"\x02\x02" and not path.with_name(path.name + "-wal").exists()


def _backed_up(path: Path, to: Path) -> bool:
    try:
        with (
            contextlib.closing(sqlite3.connect(path, timeout=60)) as source,
            contextlib.closing(sqlite3.connect(to)) as target,
        ):
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
    except sqlite3.DatabaseError:  # damaged: as it is
        to.unlink(missing_ok=True)
        return False
    return True


_log = logging.getLogger("stepfront")
