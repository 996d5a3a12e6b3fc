"""Tables are read with what older files lack, and a bad file is one line."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.tracking import made_up_search
from stepfront.errors import InputError
from stepfront.tables.parquet import read_optional_table, read_table, write_table
from stepfront.tables.schema import FRONT, METHOD_SCORES, TABLES, TRIALS


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    trials = made_up_search(6).trials
    write_table(trials, tmp_path / TRIALS)
    pd.testing.assert_frame_equal(read_table(tmp_path / TRIALS), pd.read_parquet(tmp_path / TRIALS))
    assert list(read_table(tmp_path / TRIALS).columns) == TABLES[TRIALS].names


def test_columns_that_an_older_file_lacks_have_their_fill_value(tmp_path: Path) -> None:
    front = made_up_search(6).front
    fills = TABLES[FRONT].fills
    write_table(front.drop(columns=list(fills)), tmp_path / FRONT)
    read = read_table(tmp_path / FRONT)
    for name, value in fills.items():
        assert read[name].isna().all() if value != value else (read[name] == value).all()


def test_missing_texts_are_empty_texts(tmp_path: Path) -> None:
    trials = made_up_search(3).trials
    write_table(trials.assign(error=None, worker=["w0", None, "w1"]), tmp_path / TRIALS)
    read = read_table(tmp_path / TRIALS)
    assert read["error"].tolist() == ["", "", ""]
    assert read["worker"].tolist() == ["w0", "", "w1"]


def test_a_file_that_is_missing_damaged_or_lacks_a_column_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / TRIALS
    with pytest.raises(InputError, match="no trials at") as missing:
        read_table(path)
    path.write_bytes(b"PAR1 torn")
    with pytest.raises(InputError, match="is not a readable table") as damaged:
        read_table(path)
    write_table(made_up_search(3).trials.drop(columns="gflops"), path)
    with pytest.raises(InputError, match=r"trials\.parquet lacks gflops; it has trial, ") as lacking:
        read_table(path)
    for caught in (missing, damaged, lacking):
        assert "\n" not in str(caught.value)


def test_an_optional_table_has_its_columns_and_no_rows_where_its_file_is_missing(tmp_path: Path) -> None:
    table = read_optional_table(tmp_path / METHOD_SCORES)
    assert list(table.columns) == TABLES[METHOD_SCORES].names
    assert table.empty
