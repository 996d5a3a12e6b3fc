"""The baselines of a search, at equal evaluations."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from stepfront.errors import InputError
from stepfront.search.scoring.baselines import METHODS, run_baselines
from tests.made_up_run import write_made_up_run
from tests.search.cli.test_cli import call


def test_baselines_at_equal_evaluations(searched_copy: Path) -> None:
    directory = searched_copy
    run_baselines(directory, METHODS, None)
    baselines = pd.read_parquet(directory / "baselines.parquet")
    methods = pd.read_parquet(directory / "methods.parquet").set_index("method")
    assert set(methods.index) == {"search", *METHODS}
    assert (methods["evaluations"] <= 9).all()
    assert (methods["share"] <= 1 + 1e-12).all()
    assert set(baselines["noise_seed"]) == {0}
    few = baselines[baselines["method"] == "fewer_steps"]
    assert sorted(len(w) for w in few["widths"]) == [1, 2, 3, 4, 5, 6]
    assert all(set(w) == {1.0} for w in few["widths"])
    cuts = baselines[baselines["method"] == "one_cut"]["plan"]
    assert all(len(plan.split()) == 2 for plan in cuts)
    versus = pd.read_parquet(directory / "versus.parquet")
    assert {*versus["features"], *methods["features"], *baselines["features"]} == {"classifier"}
    for _, row in versus.iterrows():
        affordable = baselines[baselines["gflops"] <= row["gflops"] * (1 + 1e-9)]
        assert row["baseline_fid"] == pytest.approx(affordable["fid"].min())
    with pytest.raises(InputError, match="unknown baseline 'nonsense'; possible: samplers, uniform, one_cut"):
        run_baselines(directory, ["nonsense"], None)


@pytest.mark.parametrize("methods", ["", " , ", "nonsense"])
def test_wrong_methods_name_those_of_the_space(methods: str, tmp_path: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    run = write_made_up_run(tmp_path, "made-up")
    code, _, error = call(monkeypatch, capsys, "baselines", str(run), "--methods", methods)
    assert code == 2
    assert error.endswith("possible: samplers, uniform, one_cut, two_cut, monotone, random, gap, fewer_steps, ddsm\n")
