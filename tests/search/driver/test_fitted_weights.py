"""Weights that are fitted to a front point's plan: a new trial, which is scored, sampled and exported on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from stepfront.errors import InputError
from stepfront.files import read_json, write_json
from stepfront.search.algorithm.trials import Proposal
from stepfront.search.checks.integrity import check_search
from stepfront.search.cli.main import app
from stepfront.search.driver import fit as driver_fit
from stepfront.search.driver.fit import fit_point_weights, fit_points, fit_sampler_weights
from stepfront.search.driver.publish import make_evaluator, sample_pixels
from stepfront.search.export.exported.sample import Point
from stepfront.search.export.program import write_point
from stepfront.search.fitting import weights
from stepfront.search.learning import search_samplers
from stepfront.search.problem.costs import read_costs
from stepfront.search.problem.load import load_problem_of_search
from stepfront.search.records.learnt_samplers import (
    SCORED,
    SamplerRecord,
    fitted_samplers,
    read_samplers,
    unscored_samplers,
)
from stepfront.search.records.plan_rows import plan_of_row
from stepfront.search.records.run_directory import find_search
from stepfront.search.scoring.baselines import SAMPLERS, _BaselinesTable
from stepfront.search.scoring.confirm import run_confirmation
from stepfront.search.study.views import recorded_trials
from stepfront.tables.facts import read_facts
from stepfront.tables.parquet import read_table
from stepfront.tables.schema import BASELINES, CONFIRM
from stepfront.tables.search_tables import Snapshot, read_snapshot
from stepfront.trainers.adaptation.plan_weights import Call
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluation import Evaluation
from stepfront.trainers.networks.supernet_files import load_supernet, save_supernet
from tests.search.conftest import do_search


def quiet(text: str) -> None:
    pass


def test_fitted_weights_are_a_trial_that_is_scored_sampled_and_exported(
    searched_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_snapshot(searched_copy)
    fit = fit_point_weights(searched_copy, "best", 2, quiet)
    trials = read_snapshot(searched_copy).trials.set_index("trial")
    row, parent = trials.loc[fit.new_trial], trials.loc[fit.trial]
    assert (row["origin"], list(row["parents"]), row["learnt"]) == ("fit", [fit.trial], fit.digest)
    assert (row["plan"], row["gflops"], row["genome"]) == (parent["plan"], parent["gflops"], parent["genome"])
    assert len(trials) == len(before.trials) + 1
    assert (searched_copy / "weights" / f"{fit.digest}.safetensors").exists()

    problem = load_problem_of_search(find_search(searched_copy)[1], searched_copy)
    evaluator, plan = make_evaluator(problem, searched_copy), plan_of_row(row)
    assert plan.weights == fit.digest
    assert evaluator(plan, int(row["images"]), int(row["noise_seed"])).fid == row["fid"] == fit.new_fid
    own = plan_of_row(parent)
    assert evaluator(own, int(row["images"]), int(row["noise_seed"])).fid == parent["fid"] != row["fid"]

    point = before.front.iloc[-1].copy()
    write_point(problem, before.facts, point, plan, tmp_path / "fitted")
    images = np.moveaxis(Point(tmp_path / "fitted", "cpu").sample([3] * 4, range(4)), 3, 1)
    assert np.array_equal(images, sample_pixels(evaluator, plan, 4, 3))
    assert not np.array_equal(images, sample_pixels(evaluator, own, 4, 3))

    # A baseline of the same plan runs on the supernet's own weights; both are scored already, so no scorer is needed.
    table = _BaselinesTable(problem, read_costs(searched_copy), searched_copy, trials.reset_index(), None)  # type: ignore[arg-type]
    assert [known["fid"] for known in table._rows("uniform", [own, plan], lambda done, total: None)] == [
        parent["fid"],
        row["fid"],
    ]

    with monkeypatch.context() as untrained:  # the fitted trial may have taken its parent's place on the front
        untrained.setattr(weights, "fit_weights", None)
        assert fit_point_weights(searched_copy, str(fit.trial), 2, quiet) == fit
        taken = before.front[before.front["trial"] == fit.trial].assign(
            trial=fit.new_trial, origin="fit", parents=[[fit.trial]], learnt=fit.digest
        )
        as_front = replace(before, front=taken)
        untrained.setattr(driver_fit, "read_snapshot", lambda directory: as_front)
        assert fit_point_weights(searched_copy, str(fit.new_trial), 2, quiet) == fit

    (searched_copy / "weights" / f"{fit.digest}.safetensors").unlink()
    with pytest.raises(
        InputError, match=f"the fitted weights {fit.digest} are missing from .*repeat the stepfront fit"
    ):
        write_point(problem, before.facts, point, plan, tmp_path / "again")
    assert any(fit.digest in str(finding) for finding in check_search(searched_copy))


def test_on_a_measured_sampler_weights_are_fitted_to_a_point_and_to_full_width(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = do_search(fresh, "sampler.solver=best", "evaluation.samplers=true", "budget.trials=4")
    fit = fit_point_weights(directory, "best", 2, quiet)
    lost = Evaluation(np.nan, np.nan, np.nan, "", 32, 0, error="the worker was lost")
    with monkeypatch.context() as failing:
        failing.setattr(weights.WeightFitting, "_score", lambda self, plan: lost)
        with pytest.raises(InputError, match=r"the worker was lost; nothing is claimed until it is"):
            fit_sampler_weights(directory, "best", 2, quiet)
    run_confirmation(directory, None, None)
    lacking = read_facts(directory)["savings"]["lacking"]
    assert "have no score; repeat stepfront fit --baseline" in lacking
    beside = fit_sampler_weights(directory, "best", 2, quiet)
    assert beside.digest in lacking
    problem, learnt = load_problem_of_search(find_search(directory)[1], directory), read_samplers(directory)
    row = read_snapshot(directory).trials.set_index("trial").loc[fit.new_trial]
    plan = plan_of_row(row, learnt)
    own = problem.samplers[len(plan.widths)]
    assert (plan.weights, plan.learnt, row["learnt"]) == (fit.digest, own, f"{fit.digest} {own.digest}")
    evaluator, at = make_evaluator(problem, directory), (int(row["images"]), int(row["noise_seed"]))
    assert evaluator(plan, *at).fid == row["fid"] == fit.new_fid
    assert not [finding for finding in check_search(directory) if not finding.usable]

    baselines = read_table(directory / BASELINES)
    best = baselines[baselines["method"] == SAMPLERS].sort_values("fid").iloc[0]
    assert (beside.plan, beside.sampler, beside.fid) == (best["plan"], best["sampler"], best["fid"])
    on_weights = replace(plan_of_row(best, learnt), weights=beside.digest)
    assert evaluator(on_weights, *at).fid == beside.new_fid != beside.fid

    run_confirmation(directory, None, None)
    assert read_facts(directory)["savings"]["lacking"] == ""
    confirmed = read_table(directory / CONFIRM)
    samplers = confirmed[confirmed["kind"] == "sampler"].drop_duplicates(["plan", "sampler"])
    name = ", ".join(filter(None, (beside.sampler, f"fit {beside.digest}")))
    pair = samplers[(samplers["plan"] == beside.plan) & samplers["sampler"].isin([beside.sampler, name])]
    assert sorted(pair["fid_search"]) == sorted((beside.fid, beside.new_fid))
    scored = confirmed[(confirmed["plan"] == beside.plan) & (confirmed["sampler"] == name)]
    seed = int(scored["noise_seed"].iloc[0])
    assert evaluator(on_weights, at[0], seed).fid == scored["fid"].iloc[0]

    monkeypatch.setattr(weights, "fit_weights", None)
    assert fit_sampler_weights(directory, beside.plan, 2, quiet).digest == beside.digest

    # A fit whose images give no finite score is kept as such: it is neither scored again nor missing.
    record = directory / "weights" / f"{beside.digest}.json"
    write_json(record, {name: value for name, value in read_json(record, "record").items() if name != SCORED})
    assert [*unscored_samplers(directory)] == [(beside.plan, name)]
    not_finite = replace(lost, error="the score is not finite")
    for scored in (lambda self, plan: not_finite, None):
        monkeypatch.setattr(weights.WeightFitting, "_score", scored)
        with pytest.raises(InputError, match="on fitted weights has no score: the score is not finite"):
            fit_sampler_weights(directory, beside.plan, 2, quiet)
    assert not unscored_samplers(directory)
    assert not fitted_samplers(directory)


def test_a_full_width_sampler_that_is_not_there_is_refused_in_one_line(searched: Path) -> None:
    with pytest.raises(InputError, match=r"no full-width sampler 5x1.00 among .*possible: none is scored yet"):
        fit_sampler_weights(searched, "5x1.00", 2, quiet)
    ended = CliRunner().invoke(app, ["fit", str(searched), "--baseline", "best"])
    assert "give --weights STEPS" in str(ended.exception)


def test_weights_are_trained_at_no_time_that_a_plan_skips(searched: Path) -> None:
    problem = load_problem_of_search(find_search(searched)[1], searched)
    calls = weights._calls(Plan((999.0, 600.0, 300.0, 100.0), (0.5, 0.0, 1.0, 0.5), "ddim"), problem)
    assert calls == {0.5: (Call(999.0, 999.0), Call(100.0, 100.0)), 1.0: (Call(300.0, 300.0),)}


def test_weights_are_trained_on_the_noise_of_a_learnt_sampler_s_times_and_told_its_own(searched: Path) -> None:
    problem = load_problem_of_search(find_search(searched)[1], searched)
    sampler = LearntSampler("ddim", (900.0, 300.0), (880.0, 310.0))
    assert weights._calls(Plan(sampler.times, (0.5, 1.0), "ddim", sampler), problem) == {
        0.5: (Call(900.0, 880.0),),
        1.0: (Call(300.0, 310.0),),
    }


def test_weights_keep_a_fitted_sampler_with_corrections(
    searched_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = plan_of_row(read_snapshot(searched_copy).front.iloc[-1])
    steps, told = range(len(parent.widths)), tuple(time - 0.5 for time in parent.times)
    states = tuple(tuple(0.01 * (i == j) for j in steps) for i in steps)
    sampler = LearntSampler("ddim", parent.times, told, states=states)
    figures: dict[str, Any] = {"fid": 1.0, "start_fid": 2.0, "own_fid": 3.0, "train": 1.0, "held_out": 1.0}
    known = (sampler, parent.widths, "learnt", "solver", "ddim", sampler.times)
    record = SamplerRecord(*known, calls=1, tflops=1.0, seconds=1.0, **figures)
    monkeypatch.setattr(search_samplers, "_run", lambda parts, other: record)
    (made,) = fit_points(searched_copy, "best", quiet)
    shown = [made.new_trial]

    def with_front(path: Path) -> Snapshot:
        found = read_snapshot(path)
        return replace(found, front=found.trials[found.trials["trial"].isin(shown)])

    monkeypatch.setattr(driver_fit, "read_snapshot", with_front)
    fit = fit_point_weights(searched_copy, str(made.new_trial), 2, quiet)
    shown.append(fit.new_trial)
    trials, samplers = read_snapshot(searched_copy).trials, read_samplers(searched_copy)
    row = trials.set_index("trial").loc[fit.new_trial]
    plan = plan_of_row(row, samplers)
    assert (plan.learnt, plan.weights, list(row["parents"])) == (sampler, fit.digest, [made.new_trial])
    problem = load_problem_of_search(find_search(searched_copy)[1], searched_copy)
    evaluator = make_evaluator(problem, searched_copy)
    assert evaluator(plan, int(row["images"]), int(row["noise_seed"])).fid == fit.new_fid
    point = read_snapshot(searched_copy).front.iloc[-1]
    content = write_point(problem, read_snapshot(searched_copy).facts, point, plan, tmp_path / "point")
    assert [step["time"] for step in content["steps"]] == list(told)
    images = np.moveaxis(Point(tmp_path / "point", "cpu").sample([3] * 4, range(4)), 3, 1)
    assert np.array_equal(images, sample_pixels(evaluator, plan, 4, 3))

    assert fit_point_weights(searched_copy, str(fit.new_trial), 2, quiet) == fit
    assert fit_points(searched_copy, str(fit.new_trial), quiet) == [made]  # all stand for what the search proposed
    proposal = recorded_trials(trials)[fit.new_trial][0]
    assert proposal == Proposal(row["genome"], "fit", (made.new_trial,), f"{fit.digest} {sampler.digest}")
    assert not [finding for finding in check_search(searched_copy) if not finding.usable]


def test_what_weights_cannot_be_fitted_to_is_refused_in_one_line(searched_copy: Path) -> None:
    with pytest.raises(InputError, match="weights are fitted to one point at a time; give --point knee or"):
        fit_point_weights(searched_copy, "front", 2, quiet)
    directory = searched_copy.parent / "supernet"
    supernet, card = load_supernet(directory)
    with torch.no_grad():
        next(iter(supernet.widest.parameters())).add_(1)
    save_supernet(supernet, directory, card.diffusion, card.data_name, card.data_fingerprint)
    with pytest.raises(InputError, match=r"used another supernet than the one in .*start a new search"):
        fit_point_weights(searched_copy, "best", 2, quiet)
