"""The report of a running search: the reason of its first failure."""

from __future__ import annotations

from pathlib import Path

from stepfront.search.driver.search_report import SearchReport
from tests.search.study.test_ledger import make_ledger, score


def test_a_report_has_the_reason_of_the_first_failed_trial(tmp_path: Path) -> None:
    ledger = make_ledger("sqlite", tmp_path, attempts=1)
    report = SearchReport(ledger, 10, 1)
    for error in ("", "no such step", "another"):
        asked = ledger.ask()
        assert asked is not None
        ledger.tell(asked.number, score(asked, error), "w")
        assert report.first_failure == ("" if not error else "no such step (attempt 1 of 1)")
