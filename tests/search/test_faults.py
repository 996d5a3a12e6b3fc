"""The fault suite in its short form; `make bench-faults` is the long one.  Each function pulls a plug and counts.

A driver that is interrupted or killed and an absent MLflow server are in tests/search/driver, killed workers in
tests/search/execution, a torn journal in tests/search/study; here is what those do not have, and their long forms.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import faults_bench
from benchmarks.faults import FAULTS

SHORT = {"node": 1, "settings": 500}
LONG = {"interrupt": 2, "workers": 1}
EVALUATION = {"images": 32, "batch": 32, "noise_repeats": 0, "samplers": False}


@pytest.mark.parametrize("name", [*SHORT, *(pytest.param(name, marks=pytest.mark.long) for name in LONG)])
def test_nothing_is_lost_and_nothing_counted_twice(name: str, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults_bench, "SUPERNET", trained / "tiny" / "supernet")
    monkeypatch.setitem(faults_bench.SETTINGS, "evaluation", EVALUATION)
    times = (SHORT | LONG)[name]
    row = FAULTS[name][0](times)
    assert row.injected == times
    assert (row.lost, row.twice) == (0, 0)
    if name == "interrupt":
        assert row.notes == "exit code 130"
    if name == "settings":
        assert not row.notes.startswith(("0 ", "500 "))  # some are valid, and most are not
