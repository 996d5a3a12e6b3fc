"""A class-conditional search over variants, with guidance: searched, compared with its baselines, taken elsewhere."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from stepfront.dashboards.figures.plans import plans_data, plans_figure
from stepfront.dashboards.report import write_report
from stepfront.dashboards.terminal.front_table import front_listing
from stepfront.errors import InputError
from stepfront.search.checks.integrity import check_search
from stepfront.search.config import RunSettings
from stepfront.search.driver.publish import make_evaluator, sample_pixels
from stepfront.search.driver.search import run_search
from stepfront.search.driver.train import run_training
from stepfront.search.export.exported.sample import Point
from stepfront.search.export.program import export_point, write_point
from stepfront.search.extending.extended_settings import extended_settings
from stepfront.search.problem.costs import read_costs
from stepfront.search.problem.load import load_problem_of_search
from stepfront.search.records.plan_rows import plan_of_row
from stepfront.search.records.run_directory import find_search
from stepfront.search.scoring.baselines import run_baselines
from stepfront.search.scoring.confirm import run_confirmation
from stepfront.search.tracking.search_runs import run_note
from stepfront.tables.parquet import read_table, write_table
from stepfront.tables.schema import BASELINES, CONFIRM, FRONT
from stepfront.tables.search_tables import read_snapshot, read_tables
from stepfront.trainers.inference.cost import plan_gflops, plan_latency_ms
from stepfront.trainers.variant import parse_variants
from tests.search.conftest import Silent, copy_of_search, tiny_settings

VARIANTS = "space.variants=[0.5, 1.0, 1.0r, 1.0u, 1.0ru, 1.0g4]"


def settings_in(directory: Path, trials: int) -> RunSettings:
    return tiny_settings(
        directory,
        *("network.classes=10", "sampler.guidance=2.0", f"budget.trials={trials}", "space.encoding=steps", VARIANTS),
        "initial_plans={uniform: 2, random: 2, gap: 1}",
    )


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = settings_in(tmp_path_factory.mktemp("variants"), 10)
    run_training(settings, False, lambda report: None, lambda text: None)
    return run_search(settings, False, Silent(), lambda text: None)


def test_trials_run_variants_and_cost_what_their_calls_do(searched: Path) -> None:
    trials, costs = read_snapshot(searched).trials, read_costs(searched)
    assert (trials["state"] == "complete").all()
    assert any("r" in plan for plan in trials["plan"])
    assert any("u" in plan for plan in trials["plan"])
    assert any("g4" in plan for plan in trials["plan"])
    assert costs[1.0].reuse_latency_ms is not None
    assert costs[1.0].reuse_latency_spread is not None
    assert costs[0.5].reuse_latency_ms is None, "0.5r is not in the space"
    for _, row in trials.iterrows():
        plan = plan_of_row(row)
        assert plan.runs == row["plan"]
        assert row["gflops"] == pytest.approx(plan_gflops(plan, costs), rel=1e-12)
        assert row["latency_ms"] == pytest.approx(plan_latency_ms(plan, costs), rel=1e-12)
        calls = sum(1 + variant.guided for variant in parse_variants(row["plan"]))
        assert row["calls"] + row["calls_saved"] == calls * row["images"]
    facts = read_snapshot(searched).facts
    assert sorted(facts["variants"]) == ["0.50", "1.00", "1.00g4", "1.00r", "1.00ru", "1.00u"]


def test_a_trial_scored_again_has_its_score(searched: Path) -> None:
    evaluator = make_evaluator(load_problem_of_search(find_search(searched)[1], searched), searched)
    trials = read_snapshot(searched).trials
    row = trials[trials["plan"].str.contains("r")].iloc[0]
    assert evaluator(plan_of_row(row), int(row["images"]), int(row["noise_seed"])).fid == row["fid"]


def test_deep_cache_and_guidance_intervals_are_baselines(searched: Path) -> None:
    run_baselines(searched, ["deepcache", "guidance_interval", "ddsm"], 4)
    rows = read_table(searched / BASELINES).groupby("method")["plan"].agg(list)
    assert rows["deepcache"][1] == "1x1.00 2x1.00r 1x1.00 2x1.00r"
    assert len(rows["guidance_interval"]) == 4
    assert all("u" in plan and "r" not in plan for plan in rows["guidance_interval"])
    assert not any("u" in plan or "r" in plan for plan in rows["ddsm"])


def test_the_front_is_confirmed_with_its_marks_and_reported(searched: Path, tmp_path: Path) -> None:
    directory = copy_of_search(searched, tmp_path)
    run_baselines(directory, ["uniform", "deepcache", "guidance_interval"], 4)
    run_confirmation(directory, None, None)
    tables = read_tables(directory)
    confirmed, front = read_table(directory / CONFIRM), tables.front
    assert front["fid_confirmed"].notna().all()
    of_front = confirmed[confirmed["kind"] == "front"].groupby("plan")["noise_seed"].nunique()
    assert of_front.to_dict() == dict.fromkeys(front["plan"], 2)
    # Plans that differ in marks alone are different plans to a confirmation.
    evaluator = make_evaluator(load_problem_of_search(find_search(directory)[1], directory), directory)
    row = next(row for _, row in front.iterrows() if {"r", "u"} & set(row["plan"]))
    for _, score in confirmed[(confirmed["plan"] == row["plan"]) & (confirmed["kind"] == "front")].iterrows():
        again = evaluator(plan_of_row(row), int(score["images"]), int(score["noise_seed"])).fid
        assert again == pytest.approx(score["fid"], rel=1e-5)
    console = Console(width=250, record=True, file=io.StringIO())
    console.print(front_listing(front))
    listed, note = console.export_text(), run_note(read_snapshot(directory))
    report = write_report(directory).read_text(encoding="utf-8")
    for plan in front["plan"]:
        assert plan in listed
        assert plan in note
        assert plan in report
    assert "deepcache" in report
    assert "guidance_interval" in report
    assert [found.detail for found in check_search(directory.parent) if not found.usable] == []


def test_an_interrupted_search_over_variants_continues_as_it_would_have(searched: Path, tmp_path: Path) -> None:
    whole = read_snapshot(searched).trials
    shutil.copytree(searched.parent / "supernet", tmp_path / searched.parent.name / "supernet")
    directory = run_search(settings_in(tmp_path, 6), False, Silent(), lambda text: None)
    assert len(read_snapshot(directory).trials) == 6
    run_search(extended_settings(directory, 4, None, None), False, Silent(), lambda text: None)
    columns = ["plan", "genome", "origin", "fid", "gflops"]
    pd.testing.assert_frame_equal(read_snapshot(directory).trials[columns], whole[columns])


def test_a_search_begun_from_it_says_which_plans_it_leaves_out(searched: Path, fresh: Path) -> None:
    said: list[str] = []
    settings = tiny_settings(fresh, f"initial_plans={{uniform: 1, 'front:{searched}': 8}}", "budget.trials=4")
    run_search(settings, False, Silent(), said.append)
    (line,) = [line for line in said if "front points of" in line]
    assert line.endswith("with steps that this space lacks (1.00g4, 1.00r, 1.00ru, 1.00u)")
    assert f"of {len(read_snapshot(searched).front)} front points" in line
    said.clear()
    run_search(extended_settings(fresh / "tiny" / "search", 2, None, None), False, Silent(), said.append)
    assert not [line for line in said if "front points of" in line], "said once, at the begin"


def test_an_exported_plan_guides_the_steps_that_the_search_guided(searched: Path, tmp_path: Path) -> None:
    problem, snapshot = load_problem_of_search(find_search(searched)[1], searched), read_snapshot(searched)
    plan = problem.plan(parse_variants("2x1.00u 1x1.00 1x0.50 2x1.00u"))
    steps = write_point(problem, snapshot.facts, snapshot.front.iloc[0], plan, tmp_path)["steps"]
    assert [step.get("guided", True) for step in steps] == [False, False, True, True, False, False]
    point, calls = Point(tmp_path, "cpu"), list[float]()
    counted = {key: lambda *given, w=key[0], n=n: calls.append(w) or n(*given) for key, n in point.networks.items()}
    point.networks.update(counted)
    expected = np.moveaxis(sample_pixels(make_evaluator(problem, searched), plan, 6, 3), 1, 3)
    assert np.array_equal(point.sample([3] * 6, range(6)), expected)
    assert calls == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    "text", ["1x1.00 2x1.00r 1x1.00ru 1x1.00u 1x1.00ru", "2x0.50g3 1x1.00 1x1.00ru 1x1.00g4 1x1.00r"]
)
def test_an_exported_program_reuses_features_and_guides_as_the_search_did(
    searched: Path, tmp_path: Path, text: str
) -> None:
    problem, snapshot = load_problem_of_search(find_search(searched)[1], searched), read_snapshot(searched)
    plan = problem.plan(parse_variants(text))
    write_point(problem, snapshot.facts, snapshot.front.iloc[0], plan, tmp_path)
    expected = np.moveaxis(sample_pixels(make_evaluator(problem, searched), plan, 6, 3), 1, 3)
    assert np.array_equal(Point(tmp_path, "cpu").sample([3] * 6, range(6)), expected)


def test_torch_export_refuses_a_plan_that_reuses_features(searched: Path, tmp_path: Path) -> None:
    directory = copy_of_search(searched, tmp_path)
    front = read_table(directory / FRONT)
    front.loc[0, "plan"] = "1x1.00 5x1.00r"  # whether the front of so short a search has one is chance
    write_table(front, directory / FRONT)
    trial, out = str(front["trial"][0]), tmp_path / "point"
    with pytest.raises(InputError, match=r"as torch-export: such a network can't reuse deep features \(r\)") as caught:
        export_point(directory, trial, out, "torch-export")
    assert str(caught.value).endswith("possible: front points without r, or --as program or pipeline")
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_the_heat_map_has_the_marks_of_the_front(searched: Path) -> None:
    tables = read_tables(searched)
    data = plans_data(tables)
    texts = [parse_variants(plan) for plan in tables.front["plan"]]
    expected = {(i, j, v.mark) for i, plan in enumerate(texts) for j, v in enumerate(plan) if v.mark}
    assert set(data.marks) == expected
    if expected:
        letters = [trace for trace in plans_figure(data).data if getattr(trace, "mode", "") == "text"]
        assert len(letters[0].text) == len(expected)
