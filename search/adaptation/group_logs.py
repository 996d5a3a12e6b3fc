"""Open and end the logs of a second stage's groups; a server that hangs is waited for once, not per group."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from stepfront.search.config import RunSettings, load_settings
from stepfront.search.records.run_directory import SETTINGS_FILE
from stepfront.search.tracking.training_log import ParentRun, TrainingLog, no_parent, warn_of
from stepfront.trainers.data import ImageData
from stepfront.trainers.networks.card import CARD_FILE


class GroupLogs:
    """Opens and ends the logs of groups; `parent` finds the run in MLflow below which the groups' are nested.

    All waits that end with a problem take `seconds` together, and each problem is reported once.
    """

    def __init__(self, parent: ParentRun = no_parent, seconds: float = 120.0) -> None:
        self._parent, self._left = parent, seconds
        self._reported: set[str] = set()

    def open(self, settings: RunSettings, data: ImageData, group: Path) -> TrainingLog:
        """Return the log of a group's training."""
        return TrainingLog(settings, data, group, self._parent)

    def end(self, log: TrainingLog) -> None:
        """End the log of a group that is trained."""
        self.wait(partial(log.close, True))

    def wait(self, ending: Callable[[float], str]) -> None:
        """Call what waits for MLflow with the seconds that are left, and log the problem that it returns, if any."""
        begin = time.monotonic()
        problem = ending(self._left)
        if problem:
            self._left = max(0.0, self._left - (time.monotonic() - begin))
            if problem not in self._reported:
                warn_of(problem, "adapt")
            self._reported.add(problem)

    def complete(self, group: Path, settings: RunSettings, data: ImageData) -> None:
        """Write what table and MLflow lack of a trained group since an interrupted call, or a server that was away.

        Its run has the name that it was begun with; it is written where `settings` say that MLflow is.
        """
        if not (group / CARD_FILE).exists() or not (group / SETTINGS_FILE).exists():
            return
        own = load_settings(group / SETTINGS_FILE).model_copy(update={"tracking": settings.tracking})
        self.end(self.open(own, data, group))
