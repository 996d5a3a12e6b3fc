"""Machines, which are folders of local copies, and what lies at a URI."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stepfront.file_store import FileStore

Machine = Callable[[str], None]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Switch to the machine of a name: each has local copies of its own."""
    monkeypatch.setattr("stepfront.search.storage.lease.SETTLE_SECONDS", 0.0)

    def switch(name: str) -> None:
        monkeypatch.setenv("STEPFRONT_CACHE", str(tmp_path / name))

    switch("a")
    return switch


def content(uri: str) -> dict[str, bytes]:
    """Return the run's files at a URI, without what the copies leave there for each other."""
    store = FileStore(uri)
    found = {}
    for name in store.names():
        if not name.startswith("."):
            with store._files.open_input_stream(store._at(name)) as file:
                found[name] = file.read()
    return found
