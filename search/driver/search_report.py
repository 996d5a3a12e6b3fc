"""Show how far a running search has come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from stepfront.dashboards.terminal.live_points import LivePoint
from stepfront.search.algorithm.trials import GENOME, result_of
from stepfront.search.pareto import front_indices
from stepfront.search.records.front import point_labels
from stepfront.search.study.ledger import Ledger


@dataclass(frozen=True)
class SearchReport:
    """The state of a running search.

    Its properties read the study when they are used, so a report that nobody looks at costs nothing.
    """

    _ledger: Ledger
    total: int
    """Trials that the budget allows; 0 without a limit of trials."""
    _workers: Callable[[], int]
    plan_text: Callable[[str], str] = str
    """Returns a genome's plan as people read it."""

    @property
    def workers(self) -> int:
        """Return the number of workers; a cluster's nodes come and go."""
        return self._workers()

    @property
    def complete(self) -> int:
        """Return the number of trials with a score."""
        return len(self._ledger.complete)

    @property
    def failed(self) -> int:
        """Return the number of trials that failed in all their attempts."""
        return self._ledger.failed

    @property
    def first_failure(self) -> str:
        """Return why the first failed trial failed; empty where none failed."""
        if not self._ledger.failed:
            return ""
        errors = (result_of(trial).get("error", "") for trial in self._ledger.trials if trial.state.is_finished())
        return next((str(error) for error in errors if error), "")

    @property
    def finished(self) -> int:
        """Return the number of complete and failed trials."""
        return self._ledger.finished

    @property
    def seconds(self) -> float:
        """Return the wall-clock time of the search, that of earlier sessions included."""
        return self._ledger.elapsed

    @property
    def hypervolumes(self) -> list[float]:
        """Return the hypervolume after each complete trial."""
        return [float(volume) for volume in self._ledger.progress.hypervolumes()]

    @property
    def front(self) -> list[LivePoint]:
        """Return the points of the front, cheapest first, with the labels knee, best and cheapest."""
        archive, scores = self._ledger.archive, self._ledger.progress.scores()
        found = front_indices(scores, archive.violations)
        places = found[scores[found, 1].argsort(kind="stable")]  # by the search's cost
        points = []
        for i, label in zip(places, point_labels(scores[places, :2]), strict=True):
            trial = archive.complete[i]
            result, genome = result_of(trial), str(trial.user_attrs[GENOME])
            points.append(LivePoint(result["gflops"], result["fid"], self.plan_text(genome), label))
        return points


class View(Protocol):
    """Shows a search while it runs; the terminal's live view is one."""

    def update(self, report: SearchReport) -> None:
        """Show the state of the search; called after every result."""
