"""A search that fits samplers meanwhile, and everything that is done with its points afterwards.

One search serves all of it; most of its seconds are workers that start.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from stepfront.errors import InputError
from stepfront.search.checks.integrity import check_search, repair_search
from stepfront.search.cli.main import app
from stepfront.search.config import settings_from
from stepfront.search.driver import fit
from stepfront.search.driver.fit import fit_points
from stepfront.search.driver.open_ledger import open_ledger
from stepfront.search.driver.publish import draw_images, draw_report, log_to_mlflow, make_evaluator, sample_pixels
from stepfront.search.driver.search import run_search
from stepfront.search.export.exported.sample import Point
from stepfront.search.export.program import export_point
from stepfront.search.problem.costs import read_costs
from stepfront.search.problem.load import load_problem_of_search
from stepfront.search.records.learnt_samplers import read_samplers
from stepfront.search.records.plan_rows import plan_of_row
from stepfront.search.records.run_directory import find_search
from stepfront.search.scoring.confirm import run_confirmation
from stepfront.search.study.ledger import Ledger
from stepfront.tables.points import pick_point
from stepfront.tables.search_tables import read_snapshot
from tests.search.conftest import Silent, own_store, tiny_settings
from tests.search.learning.test_search_samplers import LEARNING

IMAGES, SEED = 20, 3


@pytest.fixture(scope="module")
def fitted(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a search whose own grid is a bad one, and that has fitted one plan."""
    place = tmp_path_factory.mktemp("fitted")
    own = ("name=fitted", f"supernet={trained / 'tiny' / 'supernet'}", "sampler.grid=leading", "budget.trials=7")
    fits = (LEARNING, "initial_plans={uniform: 3}", "fit={every: 1, points: 1}")
    settings = tiny_settings(place, *own, *fits)
    return run_search(settings, False, Silent(), lambda text: None)


@pytest.fixture
def ledger(fitted: Path) -> Iterator[Ledger]:
    _, settings = find_search(fitted)
    problem = load_problem_of_search(settings, fitted)
    with closing(open_ledger(problem, read_costs(fitted), fitted)) as opened:
        yield opened


def fits_of(trials: pd.DataFrame) -> pd.DataFrame:
    return trials[trials["origin"] == "fit"]


def test_the_search_has_fitted_a_point_within_its_budget(fitted: Path, ledger: Ledger) -> None:
    snapshot = read_snapshot(fitted)
    trials, found = snapshot.trials, fits_of(snapshot.trials).iloc[0]
    assert len(trials) == 7
    parent = trials[trials["trial"] == found["parents"][0]].iloc[0]
    assert (found["plan"], found["gflops"], parent["learnt"]) == (parent["plan"], parent["gflops"], "")
    assert list(found["times"]) != list(parent["times"])
    assert ledger.fit_rounds.rounds[0].at == 4
    assert ledger.fit_rounds.rounds[0].points == (parent["trial"],)
    learning = [one for one in snapshot.facts["learning"] if one["digest"] == found["learnt"]]
    assert learning[0]["tflops"] == pytest.approx(ledger.fit_rounds.rounds[0].tflops)
    assert learning[0]["own_fid"] > min(learning[0]["fid"], learning[0]["start_fid"])
    assert snapshot.facts["network_gflops"] > 1000 * learning[0]["tflops"]


def test_a_plan_is_fitted_once(fitted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "_points", lambda front, point: [0])  # of so small a search the front may be one fit
    before = len(read_snapshot(fitted).trials)
    (made,), (again,) = (fit_points(fitted, "0", lambda text: None) for _ in range(2))
    trials = read_snapshot(fitted).trials
    assert made.new_trial == again.new_trial == before
    assert len(trials) == before + 1
    assert (made.new_fid, again.new_fid) == (trials["fid"].iloc[-1],) * 2
    assert list(trials["parents"].iloc[-1]) == [0]


def test_what_is_done_with_points_afterwards_knows_their_samplers(
    fitted: Path, tmp_path: Path, empty_store: Path
) -> None:
    _, settings = find_search(fitted)
    trials = read_snapshot(fitted).trials
    run_search(settings, False, Silent(), lambda text: None)  # a resume of a search that has ended
    pd.testing.assert_frame_equal(read_snapshot(fitted).trials, trials)
    number = str(fits_of(read_snapshot(fitted).front)["trial"].iloc[0])
    done = export_point(fitted, number, tmp_path / "out")
    row = pick_point(read_snapshot(fitted).front, number)
    assert [step["time"] for step in done["steps"]] == list(read_samplers(fitted)[row["learnt"]].network_times)
    problem = load_problem_of_search(settings, fitted)
    plan = plan_of_row(row, read_samplers(fitted))
    expected = sample_pixels(make_evaluator(problem, fitted), plan, IMAGES, SEED)
    exported = Point(tmp_path / "out").sample([SEED] * IMAGES, range(IMAGES))
    np.testing.assert_array_equal(exported, np.moveaxis(expected, 1, 3))
    run_confirmation(fitted, None, None)
    front = read_snapshot(fitted).front
    assert fits_of(front)["fid_confirmed"].notna().all()
    confirmed = pd.read_parquet(fitted / "confirm.parquet")
    assert set(fits_of(front)["plan"]) <= set(confirmed.loc[confirmed["sampler"] == "", "plan"])
    draw_images(problem, fitted)
    page = draw_report(fitted).read_text()
    for title in (
        "Samplers, measured or learnt",
        "What learning gained and took",
        "the plans that they were fitted to",
    ):
        assert title in page
    store = settings_from(settings.model_dump(mode="json"), [own_store(tmp_path, empty_store)])
    assert log_to_mlflow(store, fitted, True)[0] == ""
    assert [found.detail for found in check_search(fitted.parent) if not found.usable] == []


def test_a_study_that_is_rebuilt_knows_its_pauses_and_what_learning_took(fitted: Path) -> None:
    before = read_snapshot(fitted)
    assert before.facts["fit_rounds"][0]["at"] == 4
    (fitted / "study.db").unlink()
    settings = repair_search(fitted.parent)
    now = read_snapshot(fitted)
    assert {key: now.facts[key] for key in ("fit_rounds", "network_gflops")} == {
        key: before.facts[key] for key in ("fit_rounds", "network_gflops")
    }
    run_search(settings, False, Silent(), lambda text: None)
    pd.testing.assert_frame_equal(read_snapshot(fitted).trials, before.trials)


def test_an_empty_front_has_no_point_to_fit(fitted: Path) -> None:
    snapshot = read_snapshot(fitted)
    with pytest.raises(InputError, match="the front is empty"):
        fit._points(replace(snapshot, front=snapshot.front.head(0)), "front")


def test_a_fitted_point_stands_for_the_one_that_it_was_fitted_to(fitted: Path) -> None:
    snapshot = read_snapshot(fitted)
    found = fits_of(snapshot.front).iloc[0]
    parent = found["parents"][0]
    assert fit._points(snapshot, str(found["trial"])) == [parent]  # so a call that was killed can be repeated


def test_a_point_that_there_is_not_is_refused_in_one_line(fitted: Path) -> None:
    refused = CliRunner().invoke(app, ["fit", str(fitted), "--point", "999"])
    assert refused.exit_code != 0
    assert len(refused.output.strip().splitlines()) <= 1
