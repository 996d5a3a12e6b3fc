"""Change the paths in settings: make them absolute, or let them follow a run that was moved."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from stepfront.addresses import is_uri
from stepfront.search.config import RunSettings
from stepfront.sqlite_files import sqlite_file, sqlite_url
from stepfront.trainers.config import FeatureSettings

Features = TypeVar("Features", bound=FeatureSettings)
Change = Callable[[str], str]

FRONT_OF = "front:"
"""Names of initial plans that begin with it name an earlier search, whose place follows."""

AUTO = "auto"
"""In place of an earlier search: look for one."""


def with_paths(settings: RunSettings, change: Change, change_written: Change | None = None) -> RunSettings:
    """Return the settings with `change` applied to each path below or beside the run; URIs stay.

    `change_written` (default: `change`) is for databases and the cache, to which verbs write.  The run's own place,
    `directory`, stays as it is.
    """
    written = change_written or change

    def changed(path: str | None) -> str | None:
        return path if path is None or is_uri(path) else change(path)

    def changed_file(url: str | None) -> str | None:
        file = sqlite_file(url)
        return url if file is None else sqlite_url(Path(written(str(file))))

    def changed_front(name: str) -> str:
        path = name.removeprefix(FRONT_OF)
        return f"{FRONT_OF}{change(path)}" if name.startswith(FRONT_OF) and not is_uri(path) else name

    def changed_features(features: Features) -> Features:
        return features.model_copy(update={"path": changed(features.path), "reference": changed(features.reference)})

    data, tracking, learning = settings.data, settings.tracking, settings.learning
    compared_by = learning.features.model_copy(update={"path": changed(learning.features.path)})
    return settings.model_copy(
        update={
            "supernet": changed(settings.supernet),
            "data": data.model_copy(
                update={
                    "path": changed(data.path),
                    "cache": written(data.cache),
                    "autoencoder": changed(data.autoencoder),
                }
            ),
            "features": changed_features(settings.features),
            "confirm": settings.confirm.model_copy(update={"features": changed_features(settings.confirm.features)}),
            "learning": learning.model_copy(update={"features": compared_by}),
            "initial_plans": {changed_front(name): count for name, count in settings.initial_plans.items()},
            "storage": changed_file(settings.storage),
            "tracking": tracking.model_copy(update={"uri": changed_file(tracking.uri)}),
        }
    )


def follow_move(path: str, old: Path, new: Path) -> str:
    """Return where a path of a run's settings lies, after the run has moved from the folder `old` to `new`.

    What lay in the run, or beside it, is where it was relative to the run.  Anything else stays, unless it is missing
    there and found at the same place relative to the run.  One that is nowhere is the one beside the run's new place.
    """
    if not os.path.isabs(path):
        return path
    moved = os.path.normpath(new / os.path.relpath(path, old))
    if os.path.exists(path) and not (_beside(path, old) and os.path.exists(moved)):
        return path
    return moved if os.path.exists(moved) or _beside(path, old) else path


def follow_move_or_copy(path: str, old: Path, new: Path) -> str:
    """Return where a path that verbs write to lies, after the run has moved or was copied from `old` to `new`.

    As `follow_move`, but what lies in or beside a run that is still in its old place belongs to that run.  The one of
    its copy is at the same place relative to the copy, and is made there when something is written.
    """
    copied = old.is_dir() and not old.samefile(new)
    if copied and os.path.isabs(path) and _beside(path, old):
        return os.path.normpath(new / os.path.relpath(path, old))
    return follow_move(path, old, new)


def _beside(path: str, run: Path) -> bool:
    return Path(path).is_relative_to(run.parent)
