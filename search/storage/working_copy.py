"""Runs that are kept at a URI: a URI in; a local copy, worked in like any run and brought there as it changes, out.

SQLite needs a real file system and a search writes small files often, so nobody works at the URI itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stepfront.addresses import is_uri, joined, redacted
from stepfront.errors import InputError
from stepfront.search.config import RunSettings
from stepfront.search.storage.lock import directory_lock
from stepfront.search.storage.mirror import Copy
from stepfront.trainers.config import settings_json, validate

CACHE = "STEPFRONT_CACHE"
"""Names the folder of local copies; ~/.cache/stepfront by default."""


_uris: dict[Path, str] = {}
"""What the local copies that this process knows are copies of."""
_later: set[Path] = set()
"""Those that are named and not yet fetched."""


def known_as(folder: Path) -> str:
    """How a user calls a run: its URI where `folder` is the local copy of one, or the folder."""
    return redacted(_uris[folder]) if folder in _uris else str(folder)


def named(uri: str) -> Path:
    """Where `fetched` will put it; nothing is fetched before `arrived` is asked for."""
    run, part = _run_and_part(uri)
    folder = copy_folder(run, "read") / part
    if folder not in _uris:
        _uris[folder] = uri
        _later.add(folder)
    return folder


def arrived(folder: Path) -> Path:
    """The folder itself, fetched first where it was only named.  InputError when nothing lies at its URI."""
    return fetched(_uris[folder]) if folder in _later else folder


def for_any_machine(settings: RunSettings) -> RunSettings:
    """The settings with the URI of the supernet in the place of its local copy."""
    uri = None if settings.supernet is None else _uris.get(Path(settings.supernet))
    return settings if uri is None else settings.model_copy(update={"supernet": uri})


def copy_folder(uri: str, use: str) -> Path:
    """Where the local copy of a run lies: CACHE/<digest of the folder above>-USE/NAME."""
    place, _, query = uri.partition("?")
    above, _, name = place.rstrip("/").rpartition("/")
    digest = hashlib.sha256(f"{above}?{query}".encode()).hexdigest()[:12]
    root = os.environ.get(CACHE) or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "stepfront")
    return Path(root).expanduser().absolute() / f"{digest}-{use}" / name


@contextlib.contextmanager
def settings_at_home(settings: RunSettings, trains: bool = False) -> Iterator[RunSettings]:
    """The settings with local copies in the place of URIs; the run is brought to its URI as it changes, and so is a
    supernet with a URI of its own where this call trains it."""
    with contextlib.ExitStack() as held:
        changes: dict[str, Any] = {}
        if is_uri(settings.directory):
            folder = held.enter_context(mirrored(joined(settings.directory, settings.name)))
            changes["directory"] = str(folder.parent)
        if settings.supernet is not None and is_uri(settings.supernet):
            supernet = settings.supernet
            changes["supernet"] = str(held.enter_context(mirrored(supernet)) if trains else fetched(supernet))
        yield validate(RunSettings, settings_json(settings) | changes) if changes else settings


@contextlib.contextmanager
def mirrored(uri: str) -> Iterator[Path]:
    """The local copy of a run (or of its `search`), as new as the URI; within, what changes there is brought back.

    InputError when another driver holds the URI, it can't be read, or in the end can't be written.
    """
    given, (uri, part) = uri, _run_and_part(uri)
    copy = Copy(uri, copy_folder(uri, "work"))
    with directory_lock(copy.folder), copy.held():
        copy.fetch()
        _uris.update({copy.folder: uri, copy.folder / part: given})
        with copy.brought_back():
            yield copy.folder / part


def fetched(uri: str) -> Path:
    """A second local copy of a run (or of its `search` or `supernet`), for reading: a driver may be at work meanwhile,
    and what is written into it stays here.

    InputError when nothing lies there.
    """
    given, (uri, part) = uri, _run_and_part(uri)
    folder = copy_folder(uri, "read")
    with directory_lock(folder, wait_seconds=600):
        if not Copy(uri, folder).fetch(keep_changed=False):
            raise InputError(f"nothing lies at {redacted(uri)}")
    _uris.update({folder: uri, folder / part: given})
    _later.discard(folder / part)
    return folder / part


def _run_and_part(uri: str) -> tuple[str, str]:
    place, question, query = uri.partition("?")
    head, _, tail = place.rstrip("/").rpartition("/")
    return (f"{head}{question}{query}", tail) if tail in ("search", "supernet") else (uri, "")
