"""Keep a local folder and the URI of a run in line with each other.

Files that changed at the URI are downloaded, files that changed here are uploaded.  The study goes first, through
SQLite's own backup, then the tables, so that no table at the URI holds more than the study beside it.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, Field

from stepfront.addresses import shown
from stepfront.checksums import COPY_STATE
from stepfront.errors import InputError
from stepfront.file_store import FileStore
from stepfront.files import file_digest, write_atomically, write_json
from stepfront.search.storage import lease
from stepfront.search.storage.lock import InUseError
from stepfront.search.storage.run_files import belongs_to_run, copy_as_it_is, signature, signatures, upload_order

UPLOAD_SECONDS = 30.0
"""Seconds from one look for changes to the next: the work that is lost when a driver is lost with its disk."""

MANIFEST, STATE = ".stepfront.json", COPY_STATE
"""What was last uploaded and by which copy, at the URI; what this copy last saw there, in its folder."""

_log = logging.getLogger("stepfront")


class NotUploadedError(InputError):
    """The store took no upload.  Its message names the local copy, which holds what is missing there."""


class SyncedFile(BaseModel):
    """A file as it was when the folder and the URI last agreed on it."""

    signature: list[int]
    digest: str


class State(BaseModel):
    """What the folder knows of its URI.

    `copy_id` tells the folder from all other copies of a run; `version` is the last manifest that it read or wrote.
    """

    copy_id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    version: str | None = None
    files: dict[str, SyncedFile] = {}

    @staticmethod
    def read(path: Path) -> State:
        """Return the state in a file; a new one, for which all files are compared, when it is missing or damaged."""
        try:
            return State.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValueError):
            return State()


class Mirror:
    """A local folder and the URI of the run that it mirrors.  Its methods raise InputError when the store fails."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri, self.folder = shown(uri), folder
        self._store = FileStore(uri)
        folder.mkdir(parents=True, exist_ok=True)
        self._state = State.read(folder / STATE)
        self.lease = lease.Lease(self._store, self.uri, self._state.copy_id)
        self._warned = ""

    def download(self, keep_changed: bool = True) -> bool:
        """Bring the folder up to date; return whether the URI holds any file.

        Where another copy has uploaded since, files that changed here are moved aside, or overwritten unless
        `keep_changed`.  Where the run was deleted at the URI, the whole copy is moved aside: it would come back there.
        """
        manifest = self._store.read_json(MANIFEST) or {}
        listed = {name for name in self._store.names() if belongs_to_run(name)}
        if not listed:
            if self._state.files and keep_changed:
                self._move_aside(list(signatures(self.folder)), "was deleted or emptied; this machine's copy")
            self._state.version, self._state.files = manifest.get("version"), {}
            self._write_state()
            return False
        digests = manifest.get("files", {})
        elsewhere = not manifest or self._uploaded_elsewhere(manifest)
        here = signatures(self.folder)
        if elsewhere:
            changed = self._changed(here)
            if keep_changed and changed:
                self._move_aside(changed, "was changed elsewhere; what was changed here alone")
            here = {name: one for name, one in here.items() if name not in changed}
        try:
            for name in sorted(listed, key=upload_order):
                known = self._state.files.get(name)
                if name in here and (not elsewhere or (known is not None and known.digest == digests.get(name))):
                    continue
                self._download(name)
            for name in here.keys() - listed if elsewhere else ():
                (self.folder / name).unlink(missing_ok=True)
                self._state.files.pop(name, None)
            self._state.version = manifest.get("version")
        finally:
            self._write_state()  # an interrupted download continues
        return True

    def upload(self) -> int:
        """Upload what has changed here and return the number of files.

        Raises InUseError when another driver has taken the URI over.
        """
        self.lease.renew()
        manifest = self._store.read_json(MANIFEST) or {}
        # A lease may have expired while this machine slept, and another driver have come and gone.
        if manifest and self._uploaded_elsewhere(manifest):
            raise InUseError(f"{self.uri} was changed by another stepfront meanwhile")
        now = signatures(self.folder)
        uploaded = self._upload(self._changed(now), now)
        deleted = self._state.files.keys() - now.keys()
        for name in deleted:
            self._store.delete(name)
            del self._state.files[name]
        digests = {name: one.digest for name, one in sorted(self._state.files.items())}
        stale = manifest.get("files") != digests
        if stale:
            version = uuid.uuid4().hex
            self._store.write_json(MANIFEST, {"copy": self._state.copy_id, "version": version, "files": digests})
            self._state.version = version
        if stale or uploaded or deleted:
            self._write_state()  # after the manifest, in which the copy's id shows that a newer version is ours
        return len(uploaded) + len(deleted)

    @contextlib.contextmanager
    def kept_uploaded(self) -> Iterator[None]:
        """Hold the lease, bring the folder up to date, and upload changes within the block and at its end."""
        self._write_state()  # the copy's id, before a lease names it
        self.lease.acquire()
        try:
            # Apart from the uploads: one large file may take longer than a lease.
            with _repeatedly(lease.LEASE_SECONDS / 5, self._renew_lease):
                self.download()
                try:
                    with _repeatedly(UPLOAD_SECONDS, self._upload_or_warn):
                        yield
                except BaseException:
                    self._upload_or_warn()
                    raise
                try:
                    self.upload()
                except InputError as error:
                    text = f"{error}; {self._not_uploaded}, and the next command uploads it"
                    raise NotUploadedError(text) from None
        finally:
            self.lease.release()

    def _renew_lease(self) -> None:
        with contextlib.suppress(InputError):  # the next upload reports what is wrong
            self.lease.renew()

    def _upload_or_warn(self) -> None:
        try:
            self.upload()
            self._warned = ""
        except Exception as error:  # a store that can't be reached must not end a search
            if str(error) != self._warned:
                self._warned = str(error)
                _log.warning("%s; %s", error, self._not_uploaded)

    @property
    def _not_uploaded(self) -> str:
        return f"what is not uploaded yet is kept in {self.folder}"

    def _download(self, name: str) -> None:
        place = self.folder / name
        write_atomically(place, lambda beside: self._store.download(name, beside), recorded=False)
        for ending in ("-wal", "-shm"):  # of the database that stood there
            place.with_name(place.name + ending).unlink(missing_ok=True)
        self._state.files[name] = SyncedFile(signature=signature(place), digest=file_digest(place))

    def _upload(self, changed: Sequence[str], now: dict[str, list[int]]) -> list[str]:
        """Upload snapshots of files; return the names of those that still existed."""
        staging = self.folder / f".staging-{os.getpid()}"
        try:
            # Tables are staged before the study and uploaded after it: the study at the URI is never the older.
            for name in sorted(changed, key=upload_order, reverse=True):
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile: the next upload deletes it
                    copy_as_it_is(self.folder / name, staging / name)
            staged = [name for name in sorted(changed, key=upload_order) if (staging / name).exists()]
            for name in staged:
                digest, known = file_digest(staging / name), self._state.files.get(name)
                if known is None or known.digest != digest:
                    self._store.upload(staging / name, name)
                self._state.files[name] = SyncedFile(signature=now[name], digest=digest)
            return staged
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _uploaded_elsewhere(self, manifest: dict[str, object]) -> bool:
        return manifest.get("copy") != self._state.copy_id and manifest.get("version") != self._state.version

    def _changed(self, now: dict[str, list[int]]) -> list[str]:
        known = self._state.files
        return [name for name, one in now.items() if name not in known or known[name].signature != one]

    def _move_aside(self, names: Sequence[str], why: str) -> None:
        beside = (self.folder.with_name(f"{self.folder.name}.aside-{n}") for n in itertools.count(1))
        aside = next(place for place in beside if not place.exists())
        for name in names:
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            for ending in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(self.folder / f"{name}{ending}", aside / f"{name}{ending}")
        _log.warning("%s %s is moved to %s", self.uri, why, aside)

    def _write_state(self) -> None:
        write_json(self.folder / STATE, self._state.model_dump() | {"uri": self.uri})


@contextlib.contextmanager
def _repeatedly(seconds: float, action: Callable[[], None]) -> Iterator[None]:
    """Call `action` in a thread every so many seconds until the block ends."""
    ending = threading.Event()

    def repeat() -> None:
        while not ending.wait(seconds):
            action()

    thread = threading.Thread(target=repeat, name="mirror", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
