"""Check that measured tables are read back as they were written, and only under their own key."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from stepfront.search.step_tables.gap_table import GAP_FILE, read_gap_table, write_gap_table
from stepfront.search.step_tables.step_error_table import STEP_ERRORS_FILE, read_step_errors, write_step_errors
from stepfront.trainers.step_losses.error_table import StepErrors
from stepfront.trainers.variant import Variant


def made_from(key: str) -> Any:
    return SimpleNamespace(key=key, times=(900.0, 30.5), columns=(Variant(1 / 3, reuse=True), Variant(1.0)))


def test_tables_are_read_back_bit_for_bit(tmp_path: Path) -> None:
    gap = np.array([[0.25, 0.0], [1 / 3, 0.0]])
    write_gap_table(tmp_path, made_from("a"), gap)
    assert np.array_equal(read_gap_table(tmp_path, "a"), gap)  # type: ignore[arg-type]
    with np.load(tmp_path / GAP_FILE) as stored:
        assert stored["times"].tolist() == [900.0, 30.5]
        assert stored["widths"].tolist() == [1 / 3, 1.0]
        assert stored["marks"].tolist() == ["r", ""]
    errors = StepErrors((999.0, 1 / 3), np.array([0.0, 0.1]), np.full((2, 3, 1), np.nan))
    write_step_errors(tmp_path, "b", errors)
    read = read_step_errors(tmp_path, "b")
    assert read is not None
    assert read.times == errors.times
    assert np.array_equal(read.start, errors.start)
    assert np.array_equal(read.errors, errors.errors, equal_nan=True)


def test_tables_of_another_key_missing_and_damaged_ones_are_measured_again(tmp_path: Path) -> None:
    assert read_gap_table(tmp_path, "a") is None
    assert read_step_errors(tmp_path, "a") is None
    write_gap_table(tmp_path, made_from("a"), np.zeros((1, 1)))
    assert read_gap_table(tmp_path, "b") is None
    for name in (GAP_FILE, STEP_ERRORS_FILE):
        (tmp_path / name).write_bytes(b"PK\x03\x04")
    assert read_gap_table(tmp_path, "a") is None
    assert read_step_errors(tmp_path, "a") is None
