"""A lease on a URI: what keeps two drivers of two machines apart where the file system has no locks.

It is a small file that its holder renews and that runs out by the clock.  Two that begin at the same moment both write
it; after a moment each reads it again, and the one that wrote first gives way.  That is no proof against a store that
shows writes late, or against clocks that are minutes apart.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
import uuid
from datetime import UTC, datetime

from stepfront.errors import InputError
from stepfront.file_store import FileStore
from stepfront.search.storage.lock import InUseError

LEASE = ".stepfront-lease.json"
LEASE_SECONDS = 300.0
SETTLE_SECONDS = 1.0


class Lease:
    """The lease of one driver, which works in the local copy `copy`, on the URI `uri`, as people may read it."""

    def __init__(self, store: FileStore, uri: str, copy: str) -> None:
        self._store, self._uri, self._copy = store, uri, copy
        self._token = uuid.uuid4().hex
        self._since = datetime.now(UTC).isoformat(timespec="seconds")

    def acquire(self) -> None:
        """Takes the lease.  InputError when another copy holds one that has not run out.

        A lease of this very copy is that of a driver which is gone: the copy has a lock of its own.
        """
        held = self._store.read_json(LEASE)
        if held is not None and held.get("until", 0) > time.time() and held.get("copy") != self._copy:
            raise InUseError(
                f"{self._uri} is in use by another stepfront ({held.get('owner')}, since {held.get('since')}); where "
                f"that one is gone, its lease runs out within {LEASE_SECONDS / 60:.0f} minutes"
            )
        self._write()
        time.sleep(SETTLE_SECONDS)
        self._check()

    def renew(self) -> None:
        """InputError when another driver has taken the URI over."""
        self._check()
        self._write()

    def release(self) -> None:
        """Gives the lease back where it is still ours."""
        with contextlib.suppress(InputError):  # a store that is away: the lease runs out
            held = self._store.read_json(LEASE)
            if held is not None and held.get("token") == self._token:
                self._store.delete(LEASE)

    def _check(self) -> None:
        held = self._store.read_json(LEASE)
        if held is not None and held.get("token") != self._token:
            raise InUseError(f"{self._uri} was taken over by another stepfront ({held.get('owner')})")

    def _write(self) -> None:
        owner = f"{socket.gethostname()}, process {os.getpid()}"
        who = {"owner": owner, "copy": self._copy, "token": self._token, "since": self._since}
        self._store.write_json(LEASE, who | {"until": time.time() + LEASE_SECONDS})
