"""Real servers for tests: PostgreSQL from the operating system's package, on loopback."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def postgres_binaries() -> Path | None:
    """Where initdb and pg_ctl lie; None where there is no server."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return packaged[-1].parent if packaged else None


class Postgres:
    """A PostgreSQL server with a database of its own, which can be stopped and started."""

    def __init__(self, binaries: Path, directory: Path) -> None:
        self._binaries, self._data, self.port = binaries, directory / "data", free_port()
        self._user = _unprivileged()
        if self._user:
            os.chown(directory, pwd.getpwnam(self._user).pw_uid, -1)
        # A throw-away cluster: nobody but this machine reaches it, and it need not outlive a power cut.
        self._call("initdb", "-D", str(self._data), "-A", "trust", "-U", "stepfront", "--no-sync")
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://stepfront@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._call("pg_ctl", "-D", str(self._data), "-o", options, "-l", str(self._data / "log"), "-w", "start")

    def stop(self) -> None:
        """At once, as a power cut would."""
        self._call("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")

    def _call(self, *words: str) -> None:
        command = [str(self._binaries / words[0]), *words[1:]]
        subprocess.run(command, check=True, user=self._user, cwd="/", stdout=subprocess.DEVNULL)


def _unprivileged() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.getuid():
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return None


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Run a server within the block.

    Raises LookupError where none can be started.
    """
    binaries = postgres_binaries()
    if binaries is None:
        raise LookupError("no PostgreSQL server on this machine (Debian's package postgresql)")
    # Not below pytest's folder, which only its own user may enter.
    directory = Path(tempfile.mkdtemp(prefix="stepfront-postgres-"))
    server = None
    try:
        server = Postgres(binaries, directory)
        yield server
    finally:
        if server is not None:
            with contextlib.suppress(subprocess.CalledProcessError):
                server.stop()
        shutil.rmtree(directory, ignore_errors=True)
