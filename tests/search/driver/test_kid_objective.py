"""KID as an objective: searched, confirmed and shown under the name that the settings give it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stepfront.dashboards.report import write_report
from stepfront.search.config import settings_from
from stepfront.search.driver.search import run_search
from stepfront.search.objectives import Objectives
from stepfront.search.pareto import front_indices
from stepfront.search.problem.load import load_problem, warn_of_bias
from stepfront.search.scoring.confirm import run_confirmation
from tests.search.conftest import TINY, Silent, tiny_settings


def test_a_search_with_kid_is_a_front_of_three_objectives(fresh: Path) -> None:
    changes = ("budget.trials=4", "scores=[{name: kernel_distance, function: kid}]")
    directory = run_search(tiny_settings(fresh, *changes), False, Silent(), lambda text: None)
    trials = pd.read_parquet(directory / "trials.parquet")
    values = trials[["fid", "gflops", "kernel_distance"]].to_numpy()
    assert np.isfinite(values).all()
    front = pd.read_parquet(directory / "front.parquet")
    assert set(front["trial"]) == set(trials["trial"].iloc[front_indices(values)])
    run_confirmation(directory, None, None)
    confirmed = pd.read_parquet(directory / "confirm.parquet")
    assert confirmed["kernel_distance"].tolist() == confirmed["kid"].tolist()  # the same rows of the same images
    front = pd.read_parquet(directory / "front.parquet")
    assert front["kernel_distance_confirmed"].tolist() == pytest.approx(front["kid"].tolist())
    text = write_report(directory).read_text(encoding="utf-8")
    assert "Scores beside FID" in text
    assert "kernel_distance" in text


def test_the_warning_of_bias_names_the_setting_that_makes_kid_an_objective(
    fresh: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="stepfront"):
        warn_of_bias(load_problem(tiny_settings(fresh, "evaluation.images=16")))
        (line,) = [record.getMessage() for record in caplog.records if "biased" in record.getMessage()]
        caplog.clear()
        offered = line[line.index("scores=[") :]
        settings = settings_from(TINY, [offered])
        assert Objectives.of_settings(settings).names == ("fid", "gflops", "kernel_distance")
        warn_of_bias(load_problem(tiny_settings(fresh, "evaluation.images=16", offered)))
        assert not [record for record in caplog.records if "biased" in record.getMessage()]
