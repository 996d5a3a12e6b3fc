"""Pause a search every so many generations, and fit samplers to points of its front meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stepfront.search.algorithm.trials import GENOME, is_fit
from stepfront.search.config import FitSettings
from stepfront.search.fitting.plans import Fit, Fitting
from stepfront.search.pareto import front_indices
from stepfront.trainers.variant import SKIP

MOST_TRIES = 2
"""How often the pauses of a search fit a point whose fit fails for a reason that may pass."""


@dataclass(frozen=True)
class FitPauses:
    """The pauses of a search.  The first is after `settings.every` generations of `generation` searched trials.

    Which points are fitted is stored before learning begins: an interrupted pause continues with the same ones, and a
    resumed search makes the trials of an uninterrupted one.
    """

    fitting: Fitting
    settings: FitSettings
    generation: int

    def schedule(self) -> None:
        """Let the ledger propose trials up to the next pause."""
        ledger = self.fitting.ledger
        period = self.settings.every * self.generation
        ledger.pause_at = ledger.fit_rounds.next_at(period) if period else None

    @property
    def due(self) -> bool:
        """Whether the search has come to a pause, and not to its end."""
        ledger = self.fitting.ledger
        if ledger.pause_at is None or ledger.budget_exhausted or ledger.hopeless or ledger.interrupted:
            return False
        return ledger.searched >= ledger.pause_at

    def run(self) -> list[Fit]:
        """Fit samplers to some points of the front, and record them and what learning took.

        A point whose learning fails is left out, and no later pause fits it: learning would fail again.  One that
        failed for a reason that may pass, such as a lost worker, may be fitted in a later pause, `MOST_TRIES` times in
        all.
        """
        ledger = self.fitting.ledger
        rounds = ledger.fit_rounds
        if rounds.under_way is None:
            rounds.begin(ledger.searched, self._points())
        now = rounds.under_way
        assert now is not None, "it has just begun"
        fits = self.fitting.fit(now.points)
        lost = self.fitting.lost
        given_up = rounds.end(sum(fit.record.tflops for fit in fits), lost, MOST_TRIES)
        for number, reason in sorted(lost.items()):
            what = f"given up, after {MOST_TRIES} tries" if number in given_up else "tried again in a later pause"
            self.fitting.stage(f"the fit of trial {number} failed and is {what}: {reason}")
        return fits

    def _points(self) -> list[int]:
        """Return front points without a fit, cheapest first, as many as settings and budget allow."""
        ledger = self.fitting.ledger
        before, complete = ledger.fit_rounds.points, ledger.complete
        front = [complete[i] for i in front_indices(ledger.archive.scores, ledger.archive.violations)]
        numbers = [
            trial.number
            for trial in front
            if not is_fit(trial) and trial.number not in before and self._can_be_fitted(trial.user_attrs[GENOME])
        ]
        left = ledger.budget.remaining_trials(ledger.finished)
        most = min(self.settings.points, len(numbers) if left is None else left, len(numbers))
        return [numbers[i] for i in np.linspace(0, len(numbers) - 1, most).round().astype(int)]

    def _can_be_fitted(self, genome: str) -> bool:
        plan = self.fitting.problem.plan_of(genome)
        return SKIP not in plan.widths and not plan.marks
