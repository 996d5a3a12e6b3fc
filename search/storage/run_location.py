"""Find runs in folders or at URIs, and work with those at a URI in local copies.

SQLite needs a real file system and a search writes small files often, so nobody works at the URI itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepfront.addresses import is_uri, joined, shown, without_literal_secret
from stepfront.checksums import COPY_STATE
from stepfront.errors import InputError
from stepfront.search.config import RunSettings
from stepfront.search.storage.lease import has_lease
from stepfront.search.storage.lock import directory_lock, is_in_use
from stepfront.search.storage.mirror import Mirror
from stepfront.trainers.validation import settings_json, validate

CACHE = "STEPFRONT_CACHE"
"""The environment variable that names the folder of local copies; ~/.cache/stepfront by default."""


@dataclass(frozen=True)
class RunLocation:
    """A run, or its `search` or `supernet`: the local folder to work in, and the URI that this folder is a copy of."""

    local: Path
    uri: str | None = None

    def __str__(self) -> str:
        """Return how messages name the run: by its URI without passwords, or by its folder."""
        return str(self.local) if self.uri is None else shown(self.uri)


def open_for_reading(place: str) -> RunLocation:
    """Return where to read a run that is given as a folder or a URI; the files at a URI are downloaded first.

    A driver may work at the URI meanwhile, and what is written into the copy stays in it.  Raises InputError when there
    are no files at the URI.
    """
    if not is_uri(place):
        return RunLocation(Path(place))
    run, part = _run_and_part(place)
    folder = copy_folder(run, "read")
    with directory_lock(folder, wait_seconds=600):
        if not Mirror(run, folder).download(keep_changed=False):
            raise InputError(f"there are no files at {shown(run)}; give the URI of a run, such as {_EXAMPLE}")
    return RunLocation(folder / part, place)


@contextlib.contextmanager
def open_for_writing(place: str) -> Iterator[RunLocation]:
    """Yield where to work in a run that is given as a folder or a URI; changes are uploaded to the URI.

    Raises InputError when another driver works at the URI, when it can't be read, or when changes could not be uploaded
    in the end.
    """
    if not is_uri(place):
        yield RunLocation(Path(place))
        return
    run, part = _run_and_part(place)
    mirror = Mirror(run, copy_folder(run, "work"))
    with directory_lock(mirror.folder), mirror.kept_uploaded():
        yield RunLocation(mirror.folder / part, place)


@contextlib.contextmanager
def local_settings(settings: RunSettings, trains: bool = False) -> Iterator[tuple[RunSettings, RunLocation]]:
    """Yield the settings with a local folder as `directory`, and the location of their run.

    With `trains`, a supernet with a URI of its own becomes a local folder in the same way.  Otherwise it is an input:
    its URI stays in the settings, and whoever loads the supernet calls `open_for_reading`.
    """
    with contextlib.ExitStack() as held:
        run = held.enter_context(open_for_writing(settings.run_place))
        changes: dict[str, Any] = {}
        if run.uri is not None:
            changes["directory"] = str(run.local.parent)
        if is_uri(settings.run_place) and settings.supernet == joined(settings.run_place, "supernet"):
            changes["supernet"] = None  # the run's own, which lies in the same copy
        elif trains and settings.supernet is not None and is_uri(settings.supernet):
            changes["supernet"] = str(held.enter_context(open_for_writing(settings.supernet)).local)
        yield (validate(RunSettings, settings_json(settings) | changes) if changes else settings), run


def is_at_work(place: str, search: Path) -> bool:
    """Return whether a driver works in a run given as a folder or a URI, whose search was read in `search`."""
    return has_lease(_run_and_part(place)[0]) if is_uri(place) else is_in_use(search)


def copy_folder(run: str, use: str) -> Path:
    """Return where the local copy of a run lies: CACHE/<digest of the folder above>-USE/NAME."""
    place, _, query = run.partition("?")
    above, _, name = place.rstrip("/").rpartition("/")
    digest = hashlib.sha256(f"{above}?{query}".encode()).hexdigest()[:12]
    return _copies() / f"{digest}-{use}" / name


def named_by_uri(text: str) -> str:
    """Return a message with the local copies of runs called by the URIs that they are copies of."""
    folders = re.escape(str(_copies())) + r"/[0-9a-f]{12}-(?:read|work)/"
    return re.sub(rf"({folders}[A-Za-z0-9._-]*\w)((?:/[\w.-]*\w)*)", _uri_of_match, text)


def _uri_of_match(found: re.Match[str]) -> str:
    try:
        uri = str(json.loads((Path(found[1]) / COPY_STATE).read_bytes())["uri"])
    except (OSError, ValueError, KeyError):
        return found[0]
    return joined(uri, found[2][1:]) if found[2] else uri


def _copies() -> Path:
    root = os.environ.get(CACHE) or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "stepfront")
    return Path(root).expanduser().absolute()


_EXAMPLE = "s3://bucket/runs/digits"


def _run_and_part(uri: str) -> tuple[str, str]:
    """Split the URI of a run's `search` or `supernet` into the run's and the part; raise InputError for a password."""
    try:
        without_literal_secret(uri)
    except ValueError as error:
        raise InputError(str(error)) from None
    place, question, query = uri.partition("?")
    head, _, tail = place.rstrip("/").rpartition("/")
    return (f"{head}{question}{query}", tail) if tail in ("search", "supernet") else (uri, "")
