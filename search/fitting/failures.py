"""Tell failures of fits that may have passed by now, such as a lost worker, from those that would come again."""

from __future__ import annotations

from collections.abc import Callable

from stepfront.errors import InputError
from stepfront.search.algorithm.trials import Proposal, result_of
from stepfront.search.study.ledger import NOT_FINITE, Ledger


def needs_score(ledger: Ledger, proposal: Proposal, stage: Callable[[str], None]) -> bool:
    """Return whether a fitted plan is to be scored: it has no trial, or one that failed for a reason that may pass.

    `stage` gets a line where a failed plan is scored again.
    """
    found = ledger.fit_of(proposal)
    if found is None or not found.state.is_finished():
        return True
    if not may_pass(reason := failure_of(ledger, proposal)):
        return False
    stage(f"trial {found.number} failed ({reason}); its plan is scored again, as a new trial")
    return True


def failure_of(ledger: Ledger, proposal: Proposal) -> str:
    """Return why the last trial of a fitted plan failed; empty where there is none, or it has a score."""
    found = ledger.fit_of(proposal)
    return "" if found is None else str(result_of(found).get("error") or "")


def may_pass(reason: str) -> bool:
    """Return whether a plan that failed for this reason might not fail again; False for no reason.

    Scores that are not finite are so each time, and inputs that were refused are refused again.
    """
    return bool(reason) and NOT_FINITE not in reason and not reason.startswith(f"{InputError.__name__}:")
