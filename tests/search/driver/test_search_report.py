"""The report of a running search: the reason of its first failure."""

from __future__ import annotations

from pathlib import Path

from stepfront.search.algorithm.trials import GENOME
from stepfront.search.driver.search_report import SearchReport
from stepfront.trainers.variant import runs_text
from tests.search.study.test_ledger import ENCODING, make_ledger, run, score


def test_a_report_has_the_reason_of_the_first_failed_trial(tmp_path: Path) -> None:
    ledger = make_ledger("sqlite", tmp_path, attempts=1)
    report = SearchReport(ledger, 10, 1)
    for error in ("", "no such step", "another"):
        asked = ledger.ask()
        assert asked is not None
        ledger.tell(asked.number, score(asked, error), "w")
        assert report.first_failure == ("" if not error else "no such step (attempt 1 of 1)")


def test_the_front_has_plans_and_labels_and_keeps_to_the_constraints(tmp_path: Path) -> None:
    ledger = run(make_ledger("memory", tmp_path, constraints=["gflops <= 20.0"]))
    plans = {
        trial.user_attrs[GENOME]: runs_text(ENCODING.step_widths(ENCODING.unpack(trial.user_attrs[GENOME])))
        for trial in ledger.trials
    }
    front = SearchReport(ledger, 30, 1, plans.__getitem__).front
    costs = [point.gflops for point in front]
    assert costs == sorted(costs)
    assert max(costs) <= 20
    assert {name for point in front for name in point.label.split(",") if name} == {"knee", "best", "cheapest"}
    assert "cheapest" in front[0].label
    assert "best" in min(front, key=lambda point: point.fid).label
    assert {point.plan for point in front} <= set(plans.values())
