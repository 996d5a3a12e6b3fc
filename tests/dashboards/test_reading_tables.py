"""What a search directory must hold, and what is said when it does not."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from stepfront.errors import InputError
from stepfront.tables.search_tables import number, read_tables


def test_every_table_of_a_search_is_read(search: Path) -> None:
    tables = read_tables(search)
    assert tables.name == "shapes-20"
    assert len(tables.trials) == 120
    assert len(tables.complete) == 119  # one has failed
    assert tables.full.gflops == pytest.approx(12.0)
    assert tables.front.gflops.is_monotonic_increasing
    assert [entry["title"] for entry in tables.images] == ["full", "knee", "cheapest"]


@pytest.mark.parametrize("name", ["trials.parquet", "front.parquet", "search.json"])
def test_a_missing_file_is_named_in_one_line(search: Path, name: str) -> None:
    (search / name).unlink()
    with pytest.raises(InputError, match=name) as caught:
        read_tables(search)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["baselines", "methods", "versus", "confirm", "progress", "proxies"])
def test_an_absent_optional_table_is_empty(search: Path, name: str) -> None:
    (search / f"{name}.parquet").unlink()
    assert getattr(read_tables(search), name).empty


def test_a_directory_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no search directory"):
        read_tables(tmp_path / "nowhere")


def test_a_missing_column_is_named(search: Path) -> None:
    path = search / "trials.parquet"
    pd.read_parquet(path).drop(columns=["gflops"]).to_parquet(path)
    with pytest.raises(InputError, match=r"trials\.parquet lacks gflops"):
        read_tables(search)


@pytest.mark.parametrize("name", ["versus.parquet", "search.json", "images/index.json"])
def test_a_damaged_file_is_named_in_one_line(search: Path, name: str) -> None:
    (search / name).write_bytes(b"PAR1 torn")
    with pytest.raises(InputError, match=Path(name).name) as caught:
        read_tables(search)
    assert "\n" not in str(caught.value)


def test_missing_texts_are_empty_texts(search: Path) -> None:
    path = search / "versus.parquet"
    pd.read_parquet(path).assign(baseline_method=None, baseline_plan=None).to_parquet(path)
    assert set(read_tables(search).versus.baseline_plan) == {""}


def test_a_search_without_a_name_is_called_by_its_folder(make_search: Callable[..., Path]) -> None:
    directory = make_search("run-7")
    (directory / "search.json").write_text("{}")
    tables = read_tables(directory)
    assert tables.name == "run-7"
    assert (tables.full.gflops, tables.savings) == (None, {})


@pytest.mark.parametrize(("value", "expected"), [(2, 2.0), (0.5, 0.5), (float("nan"), None), (None, None), ("1", None)])
def test_only_finite_numbers_are_numbers(value: object, expected: float | None) -> None:
    assert number(value) == expected
