"""Keep two drivers on two machines apart where the file system has no locks.

A lease is a small file that its holder renews and that expires by the clock.  Two drivers that begin at the same moment
both write it; after a moment each reads it again, and the one that wrote first gives way.  This is no proof against a
store that shows writes late, or against clocks that are minutes apart.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from datetime import UTC, datetime
from typing import Any

from stepfront.errors import InputError
from stepfront.file_store import FileStore
from stepfront.search.storage.lock import InUseError

LEASE = ".stepfront-lease.json"
LEASE_SECONDS = 300.0
SETTLE_SECONDS = 1.0


def has_lease(uri: str) -> bool:
    """Return whether a driver holds a lease on a URI that has not expired."""
    held = FileStore(uri).read_json(LEASE)
    return held is not None and held.get("until", 0) > time.time()


class Lease:
    """The lease of one working copy, known by its id `copy`, on the URI `uri`, written as messages show it.

    A copy has a lock of its own, so a lease that names this copy is that of a driver which has died.  Threads may renew
    the lease at the same time.
    """

    def __init__(self, store: FileStore, uri: str, copy: str) -> None:
        self._store, self._uri, self._copy = store, uri, copy
        self._renewing = threading.Lock()
        self._since = datetime.now(UTC).isoformat(timespec="seconds")

    def acquire(self) -> None:
        """Take the lease; raises InUseError when another copy holds one that has not expired."""
        other = self._other()
        if other is not None and other.get("until", 0) > time.time():
            raise InUseError(
                f"{self._uri} is in use by another stepfront ({other.get('owner')}, since {other.get('since')}); if "
                f"that one has died, its lease runs out within {LEASE_SECONDS / 60:.0f} minutes"
            )
        self._write()
        time.sleep(SETTLE_SECONDS)
        self._check()

    def renew(self) -> None:
        """Extend the lease; raises InUseError when another driver has taken the URI over."""
        with self._renewing:
            self._check()
            self._write()

    def release(self) -> None:
        """Delete the lease unless another driver has taken the URI over."""
        with contextlib.suppress(InputError):  # the store can't be reached: the lease expires
            if self._other() is None:
                self._store.delete(LEASE)

    def _other(self) -> dict[str, Any] | None:
        held = self._store.read_json(LEASE)
        return held if held is not None and held.get("copy") != self._copy else None

    def _check(self) -> None:
        other = self._other()
        if other is not None:
            raise InUseError(f"{self._uri} was taken over by another stepfront ({other.get('owner')})")

    def _write(self) -> None:
        owner = f"{socket.gethostname()}, process {os.getpid()}"
        holder = {"owner": owner, "copy": self._copy, "since": self._since, "until": time.time() + LEASE_SECONDS}
        self._store.write_json(LEASE, holder)
