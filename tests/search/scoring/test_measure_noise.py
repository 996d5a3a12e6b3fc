"""The noise of scores, measured once by a search."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stepfront.dashboards.sections.baselines import baselines_section, best_samplers
from stepfront.search.driver.search import run_search
from stepfront.search.problem.baseline_plans import full_width_samplers
from stepfront.search.problem.load import load_problem
from stepfront.search.records.run_directory import find_search
from stepfront.search.records.score_noise import NOISE_FILE
from stepfront.search.scoring.baselines import SAMPLERS
from stepfront.tables.search_tables import read_tables
from tests.search.conftest import Silent, tiny_settings


def search(place: Path, name: str, *overrides: str) -> tuple[Path, list[str]]:
    stages: list[str] = []
    settings = tiny_settings(place, f"name={name}", f"supernet={place / 'tiny' / 'supernet'}", *overrides)
    return run_search(settings, False, Silent(), stages.append), stages


def check_samplers(directory: Path) -> None:
    """Check that the search has ended with the baseline of full-width samplers, first in the report."""
    baselines, front = (pd.read_parquet(directory / f"{name}.parquet") for name in ("baselines", "front"))
    wanted = full_width_samplers(load_problem(find_search(directory)[1]))
    baselines = baselines[baselines["method"] == SAMPLERS]
    assert sorted(baselines["sampler"]) == sorted(sampler.name for sampler in wanted)
    assert set(pd.read_parquet(directory / "methods.parquet")["method"]) >= {"search", SAMPLERS}
    best = best_samplers(baselines, front)
    assert best["steps"].tolist() == [3, 4, 5, 6]
    assert best["fid"].tolist() == pytest.approx(baselines.groupby(baselines["widths"].map(len))["fid"].min().tolist())
    assert best["front_fid"].iloc[-1] == pytest.approx(front["fid"].min())
    assert baselines_section(read_tables(directory)).index("best solver and grid") < 100


def test_a_search_measures_its_noise_once_and_its_trials_stay_the_same(fresh: Path) -> None:
    directory, stages = search(fresh, "noisy", "evaluation.noise_repeats=2", "budget.trials=5")
    facts = json.loads((directory / "search.json").read_text())
    noise, trials = facts["noise"], pd.read_parquet(directory / "trials.parquet")
    assert noise["plans"] == ["6x1.00", "6x0.50"]
    assert noise["noise_seeds"] == [2_000_000, 2_000_001]
    assert noise["images"] == 32
    assert noise["spread"] > 0
    assert noise["spread_of_difference"] > 0
    cost = trials.set_index("plan")["gflops"]
    assert noise["network_gflops"] == pytest.approx(32 * 2 * (cost["6x1.00"] + cost["6x0.50"]))
    assert facts["network_gflops"] == pytest.approx((trials["gflops"] * 32).sum() + noise["network_gflops"])
    front = pd.read_parquet(directory / "front.parquet")
    assert set(front["within_noise"]) <= {-1, *front["trial"]}
    assert "measuring the noise of scores" in stages

    # A second session reads what the first has measured, and a finished search measures nothing.
    written = (directory / NOISE_FILE).stat().st_mtime_ns
    search(fresh, "noisy", "evaluation.noise_repeats=2", "budget.trials=7")
    assert (directory / NOISE_FILE).stat().st_mtime_ns == written
    (directory / NOISE_FILE).unlink()
    search(fresh, "noisy", "evaluation.noise_repeats=2", "budget.trials=7")
    assert not (directory / NOISE_FILE).exists()

    plain, stages = search(fresh, "plain", "budget.trials=7", "evaluation.samplers=true")
    check_samplers(plain)
    assert json.loads((plain / "search.json").read_text())["noise"] is None
    assert "measuring the noise of scores" not in stages
    both = [pd.read_parquet(each / "trials.parquet")[["genome", "fid"]] for each in (directory, plain)]
    pd.testing.assert_frame_equal(*both)
    assert np.isfinite(both[0]["fid"]).all()
