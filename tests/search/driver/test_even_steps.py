"""A search over the number of steps (`space.skip: even`), from its seeds to its report and baselines."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from stepfront.dashboards.report import write_report
from stepfront.errors import InputError
from stepfront.search.checks.integrity import check_search
from stepfront.search.config import RunSettings, settings_from
from stepfront.search.initial_plans.plan_kinds import make_initial_plans
from stepfront.search.problem.baseline_plans import baseline_plans
from stepfront.search.problem.costs import read_costs
from stepfront.search.problem.load import load_problem_of_search
from stepfront.search.problem.plan_source import make_plan_source
from stepfront.search.records.run_directory import find_search
from stepfront.search.scoring.baselines import run_baselines
from stepfront.search.scoring.versus import advice
from stepfront.search.step_tables.step_error_table import read_step_errors
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from tests.search.conftest import do_search


@pytest.fixture(scope="module")
def searched(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("even")
    shutil.copytree(trained / "tiny" / "supernet", place / "tiny" / "supernet")
    seeds = "initial_plans={uniform: 2, monotone: 2, fewer_steps: 3, dp: 3}"
    own = ("space.encoding=steps", "space.skip=even")
    return do_search(place, *own, seeds, "budget.trials=16")


def test_a_plan_of_fewer_steps_has_the_times_of_a_sampler_of_so_many(searched: Path) -> None:
    trials = pd.read_parquet(searched / "trials.parquet")
    schedule = noise_schedule(load_problem_of_search(find_search(searched)[1], searched).card.diffusion)
    lengths = [len(widths) for widths in trials["widths"]]
    assert lengths[:4] == [6] * 4
    assert len(set(lengths)) >= 4
    assert max(lengths) == 6
    for _, row in trials.iterrows():
        assert list(row["times"]) == list(time_grid(schedule, "trailing", len(row["widths"])))
        assert min(row["widths"]) > 0
    assert trials["plan"].is_unique  # one genome a plan
    fewer = trials[trials["origin"] == "fewer_steps"]
    assert len(fewer) == 3
    assert {width for widths in fewer["widths"] for width in widths} == {1.0}


def test_plans_of_least_error_come_from_the_steps_that_were_measured_once(searched: Path) -> None:
    trials = pd.read_parquet(searched / "trials.parquet")
    own = trials[trials["origin"] == "dp"]
    found = load_problem_of_search(find_search(searched)[1], searched)
    kept = read_step_errors(searched, found.step_error_inputs.key)
    assert kept is not None
    np.testing.assert_allclose(kept.errors, found.step_error_inputs.measure(torch.device("cpu")).errors, atol=1e-5)
    source = make_plan_source(found, read_costs(searched))
    asked = {plan.genome for plan in make_initial_plans({"dp": 3}, source)}
    assert len(asked) == 3
    assert asked <= set(trials["genome"])
    others = set(trials.loc[trials["generation"] < 2, "genome"]) - set(own["genome"])
    assert set(own["genome"]) == asked - others  # a plan that another kind has already keeps that origin
    assert {plan.genome for plan in make_initial_plans({"dp": 100}, source)} >= asked


def test_it_has_its_strongest_baseline_among_its_own_plans(searched: Path) -> None:
    run_baselines(searched, ["fewer_steps"], None)
    trials = pd.read_parquet(searched / "trials.parquet").set_index("plan")
    baselines = pd.read_parquet(searched / "baselines.parquet").query("method == 'fewer_steps'").set_index("plan")
    both = [plan for plan in baselines.index if plan in trials.index]
    assert len(both) >= 4
    assert list(baselines.loc[both, "fid"]) == list(trials.loc[both, "fid"])
    assert list(baselines.loc[both, "gflops"]) == pytest.approx(list(trials.loc[both, "gflops"]))


@pytest.mark.parametrize(("count", "lengths"), [(100, [1, 2, 3, 4, 5, 6]), (3, [1, 4, 6]), (2, [1, 6]), (1, [6])])
def test_fewer_steps_than_there_are_evaluations_for_are_spread_evenly(
    searched: Path, count: int, lengths: list[int]
) -> None:
    problem = load_problem_of_search(find_search(searched)[1], searched)
    source = make_plan_source(problem, read_costs(searched))
    plans = baseline_plans("fewer_steps", count, problem, source)
    assert [len(plan.widths) for plan in plans] == lengths
    assert {width for plan in plans for width in plan.widths} == {1.0}


def test_its_tables_are_whole_and_its_report_is_made(searched: Path, tmp_path: Path) -> None:
    assert [found.detail for found in check_search(searched.parent) if not found.usable] == []
    write_report(searched, tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_a_search_that_loses_to_fewer_steps_gets_advice() -> None:
    compared = pd.DataFrame(
        {"baseline_method": ["fewer_steps", "fewer_steps", "cuts", None], "baseline_fid": [1.0, 3.0, 1.0, np.nan]}
    ).assign(fid=2.0)
    fixed = settings_from({}, ["space.skip=false"])
    told = advice(compared, fixed)
    assert told is not None
    assert "beat 1 of 4 front points" in told
    assert "space.skip=even" in told
    assert advice(compared.iloc[1:], fixed) is None
    assert advice(compared, RunSettings()) is None


def test_steps_are_even_unless_the_encoding_is_cuts() -> None:
    assert RunSettings().space.skip == "even"
    assert settings_from({}, ["space.encoding=cuts"]).space.skip is False
    assert settings_from({"space": {"encoding": "cuts", "skip": True}}).space.skip is True


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["space.encoding=cuts"], "skip: even needs encoding stages or steps"),
        (["space.skip=evn"], r"space.skip: input should be False, True or 'even' \(given: 'evn'\)$"),
    ],
)
def test_what_even_steps_cannot_be(given: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        settings_from({}, ["sampler.steps=20", "space.skip=even", *given])
