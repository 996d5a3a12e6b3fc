"""Keep what an interrupted learning has done so far, and how far it is, until its sampler is kept."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stepfront.dashboards.formatting import duration
from stepfront.errors import InputError
from stepfront.files import write_text
from stepfront.trainers.sampler_learning.lesson import LearningProgress

SCORES, PROGRESS, LOCK = "scores.json", "progress.json", "lock"

MOST_AT_ONCE = 4
"""Most learnings of one sampler at the same time that keep their states."""


@dataclass(frozen=True)
class Unfinished:
    """A folder that holds the state of one learning: scores of closed forms, descents, and how far it is.

    Without a folder nothing is kept: a worker on another machine may not see that of the driver.
    """

    folder: Path | None = None

    @property
    def descents(self) -> Path | None:
        """The folder for the states of descents; None where nothing is kept."""
        return self.folder if self.folder is not None and self.folder.is_dir() else None

    def score(self, name: str, measure: Callable[[], float]) -> float:
        """Return the score of this name: that of an interrupted call, or else measured now and kept."""
        known = self._read(SCORES)
        if name not in known:
            known |= {name: measure()}
            self._write(SCORES, known)
        return float(known[name])

    def report(self, progress: LearningProgress) -> None:
        """Keep how far learning is, for the driver to read."""
        found = {"phase": progress.phase, "done": progress.done, "remaining": progress.remaining}
        self._write(PROGRESS, found | {"seconds": progress.seconds})

    def progress(self) -> LearningProgress | None:
        """Return how far learning is; None where nothing is known."""
        found = self._read(PROGRESS)
        try:
            return LearningProgress(found["phase"], found["done"], found["seconds"], found["remaining"])
        except KeyError:
            return None

    def remove(self) -> None:
        """Delete the folder."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, name: str) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            content = json.loads((self.folder / name).read_text(encoding="utf-8")) if self.folder else {}
            return content if isinstance(content, dict) else {}
        return {}

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        if (folder := self.descents) is None:
            return
        with contextlib.suppress(InputError):  # what can't be kept is measured again
            write_text(folder / name, json.dumps(content), recorded=False)


@contextlib.contextmanager
def own_folder(folder: Path) -> Iterator[Unfinished]:
    """Provide a folder for one learning, which no other process uses meanwhile.

    It is `folder`, with what an interrupted learning has left there, or FOLDER-2 and so on where another process learns
    the same.  Nothing is kept where there are `MOST_AT_ONCE` of these, and where none can be written.
    """
    with contextlib.ExitStack() as held:
        for own in _folders(folder):
            try:
                own.mkdir(parents=True, exist_ok=True)
                held.enter_context(FileLock(own / LOCK).acquire(timeout=0))
            except (Timeout, OSError):
                continue
            try:
                yield Unfinished(own)
            finally:
                _remove_empty(own)
            return
        yield Unfinished()


def remove_left(folder: Path) -> None:
    """Delete the folders of `own_folder` that no process uses."""
    for own in _folders(folder):
        if own.is_dir():
            with contextlib.suppress(Timeout, OSError), FileLock(own / LOCK).acquire(timeout=0):
                shutil.rmtree(own, ignore_errors=True)


def _remove_empty(own: Path) -> None:
    """Delete a folder in which nothing was kept; its lock is held."""
    with contextlib.suppress(OSError):
        if {path.name for path in own.iterdir()} <= {LOCK}:
            shutil.rmtree(own, ignore_errors=True)


def _folders(folder: Path) -> list[Path]:
    return [folder, *(folder.with_name(f"{folder.name}-{number}") for number in range(2, MOST_AT_ONCE + 1))]


def remaining_seconds(running: Sequence[LearningProgress | None], ended: Sequence[float], workers: int) -> float:
    """Return about how long several learnings still take on so many workers; NaN where nothing is known yet.

    `running` are those that have not ended, None where nothing is known of one: it is expected to take as long as the
    others.  `ended` are the seconds of those that have.
    """
    known = [p for p in running if p is not None and math.isfinite(p.remaining)]
    totals = [*ended, *(p.seconds + p.remaining for p in known)]
    if not totals:
        return math.nan
    left = [p.remaining for p in known] + [sum(totals) / len(totals)] * (len(running) - len(known))
    return max(max(left, default=0.0), sum(left) / workers)


class ProgressReport:
    """Reports every so many seconds about how long several learnings still take."""

    def __init__(self, what: str, stage: Callable[[str], None], workers: int, every: float = 30.0) -> None:
        self._what, self._stage, self._workers, self._every = what, stage, workers, every
        self._next = time.monotonic() + every

    def look(self, running: Sequence[Unfinished], ended: Sequence[float]) -> None:
        """Report where it is time to, and something is known."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._every
        left = remaining_seconds([one.progress() for one in running], ended, self._workers)
        if math.isfinite(left):
            counts = f"{len(ended)} of {len(ended) + len(running)} done"
            self._stage(f"{self._what}, {counts}, about {duration(left)} left")
