"""Tell failures of fits that may have passed by now, such as a lost worker, from those that would come again."""

from __future__ import annotations

from collections.abc import Callable

from stepfront.search.algorithm.trials import Proposal, result_of
from stepfront.search.study.ledger import NOT_FINITE, Ledger


def needs_score(ledger: Ledger, proposal: Proposal, stage: Callable[[str], None]) -> bool:
    """Return whether a fitted plan is to be scored: it has no trial, or one that failed for a reason that may pass.

    Scores that are not finite are so each time.  `stage` gets a line where a failed plan is scored again.
    """
    found = ledger.fit_of(proposal)
    if found is None or not found.state.is_finished():
        return True
    if not has_failed_in_passing(ledger, proposal):
        return False
    stage(f"trial {found.number} failed ({result_of(found)['error']}); its plan is scored again, as a new trial")
    return True


def has_failed_in_passing(ledger: Ledger, proposal: Proposal) -> bool:
    """Return whether the last trial of a fitted plan failed, and might not fail again."""
    found = ledger.fit_of(proposal)
    error = "" if found is None else str(result_of(found).get("error") or "")
    return bool(error) and NOT_FINITE not in error
