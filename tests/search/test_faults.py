"""The fault suite in its short form; `make bench-faults` is the long one.  Each function pulls a plug and counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import faults
from benchmarks.faults import FAULTS

SHORT = {"driver": 2, "interrupt": 2, "workers": 1, "node": 1, "mlflow": 1, "journal": 1, "settings": 500}


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_is_lost_and_nothing_counted_twice(name: str, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "SUPERNET", trained / "tiny" / "supernet")
    row = FAULTS[name][0](SHORT[name])
    assert row.injected == SHORT[name]
    assert (row.lost, row.twice) == (0, 0)
    if name == "interrupt":
        assert row.notes == "exit code 130"
    if name == "settings":
        assert not row.notes.startswith(("0 ", "500 "))  # some are valid, and most are not
