"""Check when the limits of a budget end a search."""

from __future__ import annotations

from pathlib import Path

from stepfront.search.algorithm.trials import result_of
from stepfront.search.study.budget import Limits
from tests.search.study.test_ledger import make_ledger, run


def test_limits_by_flops_time_and_stall(tmp_path: Path) -> None:
    by_flops = run(make_ledger("memory", tmp_path, limits=Limits(tflops=6.0)))
    spent = [result_of(t)["gflops"] * 100 / 1000 for t in by_flops.trials]
    assert sum(spent) >= 6.0 > sum(spent[:-1])
    assert make_ledger("memory", tmp_path, limits=Limits(seconds=0.0)).ask() is None
    patient = run(make_ledger("memory", tmp_path, limits=Limits(patience=2, trials=500)))
    history = patient.progress.hypervolumes()
    assert history[-1] == history[-13]
    assert len(history) < 500


def test_the_remaining_trials_count_those_in_flight() -> None:
    ledger = run(make_ledger("memory", Path(), limits=Limits(trials=10)), most=4)
    ledger.ask()
    assert (ledger.remaining, ledger.in_flight, ledger.budget_exhausted) == (5, 1, False)
    assert make_ledger("memory", Path(), limits=Limits(seconds=60.0)).remaining is None
