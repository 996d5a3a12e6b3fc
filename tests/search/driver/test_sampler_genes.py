"""A search whose plans choose their solver and grid, from its first plans to its confirmation and a warm start.

It needs a search of its own: no other has genes for the sampler.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from rich.console import Console

from stepfront.dashboards.report import write_report
from stepfront.dashboards.terminal.front_table import front_listing
from stepfront.errors import InputError
from stepfront.search.checks.integrity import check_search
from stepfront.search.driver.search_facts import _full_width
from stepfront.search.earlier.earlier_models import earlier_models, front_levels
from stepfront.search.problem.costs import read_costs
from stepfront.search.problem.evaluator_parts import local_parts
from stepfront.search.problem.load import load_problem_of_search
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.plan_rows import own_sampler, plan_of_row, sampler_name
from stepfront.search.records.run_directory import find_search
from stepfront.search.scoring.confirm import run_confirmation
from stepfront.search.tracking.search_runs import run_note
from stepfront.tables.search_tables import read_snapshot
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.evaluator import Evaluator
from tests.search.conftest import do_search

GENES = ("space.solvers=[ddim, dpmpp_2m]", "space.grids=[trailing, quadratic]", "space.encoding=steps")
OWN = ("space.skip=even", "initial_plans={uniform: 2, monotone: 4, fewer_steps: 3}")


@pytest.fixture(scope="module")
def searched(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("genes")
    shutil.copytree(trained / "tiny" / "supernet", place / "tiny" / "supernet")
    return do_search(place, *GENES, *OWN, "budget.trials=15")


@pytest.fixture(scope="module")
def problem(searched: Path) -> SearchProblem:
    return load_problem_of_search(find_search(searched)[1], searched)


def test_each_plan_runs_on_its_own_solver_and_the_grid_of_its_number_of_steps(
    searched: Path, problem: SearchProblem
) -> None:
    trials = pd.read_parquet(searched / "trials.parquet")
    schedule = noise_schedule(problem.card.diffusion)
    assert trials["genome"].is_unique
    for _, row in trials.iterrows():
        assert list(row["times"]) == list(time_grid(schedule, row["grid"], len(row["widths"])))
    pairs = set(zip(trials["solver"], trials["grid"], strict=True))
    assert len(pairs) == 4  # nine initial plans take each pair in turn
    assert problem.plan_text(trials["genome"].iloc[0]) == f"{trials['plan'].iloc[0]} (ddim, trailing grid)"
    uniform = trials[trials["origin"] == "uniform"]
    assert set(zip(uniform["solver"], uniform["grid"], strict=True)) == {("ddim", "trailing")}
    assert set(trials["origin"]) & {"mutation", "crossover"}


def test_a_score_is_that_of_the_rows_solver_and_grid(searched: Path, problem: SearchProblem) -> None:
    trials = pd.read_parquet(searched / "trials.parquet")
    row = trials[(trials["solver"] == "dpmpp_2m") & (trials["widths"].map(len) > 2)].iloc[0]
    evaluate = Evaluator(local_parts(problem, read_costs(searched), 1))
    assert evaluate(plan_of_row(row), 32, 0).fid == pytest.approx(row["fid"], rel=1e-5)
    assert evaluate(problem.plan(tuple(row["widths"])), 32, 0).fid != pytest.approx(row["fid"], rel=1e-5)


def test_full_width_is_that_on_the_searchs_own_sampler(searched: Path, problem: SearchProblem) -> None:
    trials = pd.read_parquet(searched / "trials.parquet")
    other = trials.iloc[[0]].assign(solver="dpmpp_2m", fid=-1.0, trial=99)
    assert trials["plan"].iloc[0] == problem.uniform_plan(1.0).runs
    assert _full_width(problem, pd.concat([other, trials]))["fid"] == trials["fid"].iloc[0]


def test_confirmation_listing_report_and_note_tell_equal_widths_apart(searched: Path) -> None:
    run_confirmation(searched, 32, 2)
    snapshot = read_snapshot(searched)
    front, confirm = snapshot.front, pd.read_parquet(searched / "confirm.parquet")
    assert front["fid_confirmed"].notna().all()
    own = own_sampler(find_search(searched)[1])
    assert own == ("ddim", "trailing")
    for _, row in front.iterrows():
        scores = confirm[(confirm["plan"] == row["plan"]) & (confirm["sampler"] == sampler_name(row, own))]
        assert scores.drop_duplicates("noise_seed")["fid"].mean() == pytest.approx(row["fid_confirmed"])
    console = Console(width=250, record=True)
    console.print(front_listing(front))
    listed, note = console.export_text(), run_note(snapshot)
    report = write_report(searched).read_text(encoding="utf-8")
    for name in {f"{row['solver']}, {row['grid']} grid" for _, row in front.iterrows()}:
        assert name in listed
        assert name in note
        assert name in report
    assert [found.detail for found in check_search(searched.parent) if not found.usable] == []


def test_a_search_begun_from_it_takes_solver_and_grid_along(searched: Path, problem: SearchProblem) -> None:
    front = pd.read_parquet(searched / "front.parquet")
    taken = front_levels(searched, 100, problem.encoding)
    assert {problem.encoding.pack(levels) for levels in taken} == set(front["genome"])
    (model,) = earlier_models({f"front:{searched}": 4}, problem.encoding, problem.gap).values()
    assert torch.tensor(model(taken)).isfinite().all()


def test_it_continues_and_other_choices_are_another_search(searched: Path) -> None:
    before = pd.read_parquet(searched / "trials.parquet")
    place = searched.parent.parent
    do_search(place, *GENES, *OWN, "budget.trials=17")
    after = pd.read_parquet(searched / "trials.parquet")
    assert len(after) == 17
    assert list(after["genome"].iloc[:15]) == list(before["genome"])
    assert list(after["fid"].iloc[:15]) == list(before["fid"])
    other = ("space.grids=[trailing, leading]", *GENES[::2])
    with pytest.raises(InputError, match=r"this search was begun with space"):
        do_search(place, *other, *OWN, "budget.trials=17")
