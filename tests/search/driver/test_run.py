"""The whole path on a tiny run of real digits: train, search on Ray Tune, confirm, baselines, report, MLflow."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from stepfront.dashboards.report import write_report
from stepfront.errors import InputError
from stepfront.files import write_text
from stepfront.search.algorithm.trials import result_of
from stepfront.search.driver.open_ledger import open_ledger
from stepfront.search.driver.publish import publish
from stepfront.search.driver.search import extended_settings, run_search
from stepfront.search.driver.search_report import SearchReport
from stepfront.search.driver.train import run_training
from stepfront.search.execution.executor import run_trials
from stepfront.search.execution.plan_scorer import PlanScorer
from stepfront.search.execution.tune_searcher import Job
from stepfront.search.execution.worker import LoadEvaluator
from stepfront.search.pareto import front_indices
from stepfront.search.problem.costs import load_or_measure_costs
from stepfront.search.problem.evaluator_parts import local_parts
from stepfront.search.problem.load import load_problem, load_problem_of_search
from stepfront.search.problem.plan_source import make_plan_features
from stepfront.search.records.plan_rows import plan_of_row
from stepfront.search.records.run_directory import find_search, resume_settings, warm_settings
from stepfront.search.scoring.baselines import METHODS, run_baselines
from stepfront.search.scoring.confirm import run_confirmation
from stepfront.search.step_tables.gap_table import read_gap_table
from stepfront.tables.parquet import read_table
from stepfront.tables.points import pick_point
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.variant import parse_runs
from stepfront.trainers.evaluation import Evaluation
from tests.search.conftest import TINY, tiny_settings

DESIGN_COLUMNS = {
    *("trial", "generation", "origin", "parents", "genome", "plan", "widths", "times", "solver", "fid"),
    *("features", "gflops", "latency_ms", "images", "noise_seed", "seconds", "worker", "state", "error"),
}


class Silent:
    """A view that only counts."""

    def __init__(self) -> None:
        self.updates = 0

    def update(self, report: SearchReport) -> None:
        self.updates += 1


def do_search(directory: Path, *overrides: str, fresh: bool = False) -> Path:
    return run_search(tiny_settings(directory, *overrides), fresh, Silent(), lambda text: None)


@pytest.fixture(scope="module")
def searched(trained: Path, cluster: None) -> Path:
    """One search that the reading tests share."""
    return do_search(trained)


def test_the_gap_table_is_kept_with_the_search(searched: Path) -> None:
    directory, settings = find_search(searched)
    found = load_problem_of_search(settings, directory)
    kept = read_gap_table(directory, found.gap_inputs.key)
    assert kept is not None
    assert np.array_equal(found.gap, kept)
    np.testing.assert_allclose(kept, found.gap_inputs.measure(torch.device("cpu")), atol=1e-6)
    assert read_gap_table(directory, "of another supernet") is None
    assert read_gap_table(directory.parent, found.gap_inputs.key) is None


def test_training_reports_and_is_not_repeated(trained: Path) -> None:
    card, worked = run_training(tiny_settings(trained), False, lambda report: None, lambda text: None)
    assert not worked
    assert set(card.made_with["held_out_losses"]) == {"0.25", "0.5", "1.0"}
    with pytest.raises(InputError, match=r"trained with training.steps 12, not 13"):
        run_training(tiny_settings(trained, "training.steps=13"), False, lambda r: None, lambda t: None)


def test_tables_have_the_promised_columns_and_agree(searched: Path) -> None:
    trials = pd.read_parquet(searched / "trials.parquet")
    front = pd.read_parquet(searched / "front.parquet")
    assert set(trials.columns) >= DESIGN_COLUMNS
    assert {*DESIGN_COLUMNS, "fid_confirmed", "fid_low", "fid_high", "confirm_images", "confirm_seeds"} <= set(
        front.columns
    )
    assert len(trials) == trials["plan"].nunique() == 9
    assert (trials["state"] == "complete").all()
    assert list(trials["trial"]) == list(range(9))
    for _, row in trials.iterrows():
        assert tuple(row["widths"]) == parse_runs(row["plan"])
        assert len(row["times"]) == len(row["widths"]) == 6
    scores = trials[["fid", "gflops"]].to_numpy()
    assert set(front["trial"]) == set(trials["trial"].iloc[front_indices(scores)])
    labels = ",".join(front["label"])
    assert all(name in labels for name in ("knee", "best", "cheapest"))


def test_costs_are_those_of_the_plan(searched: Path) -> None:
    trials = pd.read_parquet(searched / "trials.parquet")
    macs = {row["width"]: row["macs"] for row in json.loads((searched / "costs.json").read_text())["widths"]}
    for _, row in trials.iterrows():
        assert row["gflops"] == pytest.approx(2e-9 * sum(macs[w] for w in row["widths"]))
        assert row["latency_ms"] > 0


def test_progress_grows(searched: Path) -> None:
    progress = pd.read_parquet(searched / "progress.parquet")
    assert (np.diff(progress["hypervolume"]) >= 0).all()
    assert (np.diff(progress["best_fid"]) <= 0).all()
    assert list(progress["evaluation"]) == list(range(1, 10))


def test_a_finished_search_is_not_repeated(searched: Path, trained: Path, cluster: None) -> None:
    before = (searched / "study.db").read_bytes(), pd.read_parquet(searched / "trials.parquet")
    do_search(trained)
    pd.testing.assert_frame_equal(pd.read_parquet(searched / "trials.parquet"), before[1])


def test_equal_seeds_give_equal_scores_whatever_the_workers(searched: Path, fresh: Path, cluster: None) -> None:
    again = pd.read_parquet(do_search(fresh, "workers.count=1") / "trials.parquet")
    first = pd.read_parquet(searched / "trials.parquet")
    scores = dict(zip(first["plan"], first["fid"], strict=True))
    both = [plan for plan in again["plan"] if plan in scores]
    assert len(both) >= 4
    assert [again.set_index("plan").loc[plan, "fid"] for plan in both] == [scores[plan] for plan in both]


def test_confirmation_uses_held_out_noise_and_marks_the_front(fresh: Path, cluster: None) -> None:
    directory = do_search(fresh)
    run_confirmation(directory, None, None)
    confirmed = pd.read_parquet(directory / "confirm.parquet")
    trials = pd.read_parquet(directory / "trials.parquet")
    assert not set(confirmed["noise_seed"]) & set(trials["noise_seed"])
    front = pd.read_parquet(directory / "front.parquet")
    assert (front["confirm_seeds"] == 2).all()
    for _, row in front.iterrows():
        mine = confirmed[confirmed["plan"] == row["plan"]].drop_duplicates("noise_seed")["fid"]
        assert row["fid_confirmed"] == pytest.approx(mine.mean())
        assert row["fid_low"] < row["fid_confirmed"] < row["fid_high"]
    facts = json.loads((directory / "search.json").read_text())
    savings = facts["savings"]
    expected = 1 - savings["gflops"] / facts["full"]["gflops"] if savings["holds"] else None
    assert savings["flops_saved"] == pytest.approx(expected)
    scored = (directory / "confirm.parquet").stat().st_mtime_ns
    called: list[int] = []
    run_confirmation(directory, None, None, lambda done, total: called.append(done))
    assert not called  # scores that are there are kept
    assert (directory / "confirm.parquet").stat().st_mtime_ns >= scored
    assert np.isfinite(front[["kid", "kid_low", "kid_high"]].to_numpy()).all()
    assert front[["precision", "recall"]].stack().between(0, 1).all()
    for _, row in front.iterrows():
        mine = confirmed[confirmed["plan"] == row["plan"]].drop_duplicates("noise_seed")
        assert row["kid"] == pytest.approx(mine["kid"].mean())
        assert row["precision"] == pytest.approx(mine["precision"].mean())
    assert set(confirmed["real_images"]) == {32}
    for name in ("trials", "front", "progress", "proxies", "baselines", "confirm"):
        assert set(pd.read_parquet(directory / f"{name}.parquet")["features"]) == {"classifier"}, name
    # Scores of another number of images come beside these, and the larger number is what the front is judged by.
    run_confirmation(directory, 48, None)
    both = pd.read_parquet(directory / "confirm.parquet")
    scores = ["plan", "kind", "noise_seed", "images", "fid", "kid", "precision", "recall"]
    pd.testing.assert_frame_equal(
        both.loc[both["images"] == 32, scores].sort_values(scores).reset_index(drop=True),
        confirmed[scores].sort_values(scores).reset_index(drop=True),
    )
    assert set(both.loc[both["used"], "images"]) == {48}
    assert (pd.read_parquet(directory / "front.parquet")["confirm_images"] == 48).all()
    run_confirmation(directory, 32, None, lambda done, total: called.append(done))
    assert not called
    assert (pd.read_parquet(directory / "front.parquet")["confirm_images"] == 48).all()
    assert "KID" in write_report(directory).read_text()
    assert both["fid_infinity"].isna().all()
    settings = directory / "settings.yaml"
    write_text(settings, settings.read_text().replace("extrapolate: false", "extrapolate: true"))
    run_confirmation(directory, 32, None)
    extrapolated = pd.read_parquet(directory / "confirm.parquet").query("images == 32")
    assert np.isfinite(extrapolated["fid_infinity"]).all()
    assert extrapolated["fid"].sum() == pytest.approx(confirmed["fid"].sum())


def test_baselines_at_equal_evaluations(fresh: Path, cluster: None) -> None:
    directory = do_search(fresh)
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


def test_report_and_mlflow(fresh: Path, cluster: None) -> None:
    from mlflow import MlflowClient

    settings = tiny_settings(fresh)
    directory = do_search(fresh)
    problem, opening = publish(settings, directory, True)
    assert problem == ""
    assert opening == f"stepfront ui {settings.run_directory}"
    report = (directory / "report.html").read_text(encoding="utf-8")
    for section in ("The front", "Width per step", "Images"):
        assert section in report
    client = MlflowClient(tracking_uri=settings.tracking.uri)
    (experiment,) = [e for e in client.search_experiments() if e.name.startswith("stepfront")]
    children = client.search_runs([experiment.experiment_id], "tags.kind = 'trial'")
    (parent,) = client.search_runs([experiment.experiment_id], "tags.kind = 'search'")
    trials = pd.read_parquet(directory / "trials.parquet").set_index("trial")
    assert {int(c.data.tags["trial"]) for c in children} == set(trials.index)
    for child in children:
        row = trials.loc[int(child.data.tags["trial"])]
        assert child.data.metrics["fid"] == pytest.approx(row["fid"], rel=1e-3)
        assert child.data.params["plan"] == row["plan"]
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.info.status == "FINISHED"
    front = pd.read_parquet(directory / "front.parquet")
    assert {int(c.data.tags["trial"]) for c in children if c.data.metrics["domination_rank"] == 0} == set(
        front["trial"]
    )
    assert parent.info.status == "FINISHED"
    artifacts = {a.path for a in client.list_artifacts(parent.info.run_id)}
    assert {"report.html", "front.parquet", "front.csv", "front.svg", "front.png", "trials.json"} <= artifacts
    search_id = parent.data.tags["search_id"]
    view = json.loads(client.get_experiment(experiment.experiment_id).tags[f"mlflow.sharedViewState.{search_id}"])
    assert json.loads(view["state"])["orderByKey"] == "metrics.`table_row`"
    publish(settings, directory, True)  # again: nothing twice
    assert len(client.search_runs([experiment.experiment_id], "tags.kind = 'trial'")) == 9
    (directory / "mlflow.json").unlink()  # the server's own runs tell what is there
    publish(settings, directory, True)
    assert len(client.search_runs([experiment.experiment_id], "tags.kind = 'trial'")) == 9


def test_an_mlflow_that_is_away_costs_no_trial(fresh: Path, cluster: None) -> None:
    settings = tiny_settings(fresh, "tracking.uri=http://127.0.0.1:9")
    directory = run_search(settings, False, Silent(), lambda text: None)
    assert len(pd.read_parquet(directory / "trials.parquet")) == 9
    problem, _ = publish(settings, directory, True)
    assert "127.0.0.1:9" in problem
    assert (directory / "report.html").exists()


def test_a_constraint_that_no_plan_keeps_is_refused_before_anything_is_evaluated(fresh: Path, cluster: None) -> None:
    settings = tiny_settings(fresh, "evaluation.constraints=['gflops <= 1e-6']")
    with pytest.raises(InputError, match=r"no plan keeps the constraint gflops <= 1e-06.*narrowest uniform plan has"):
        run_search(settings, False, Silent(), lambda text: None)


class FailingLoad:
    """A worker whose evaluations raise, return nonsense, stop for ever or kill the process, by the plan."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __call__(self):  # type: ignore[no-untyped-def]
        def evaluate(plan: Plan, images: int, noise_seed: int) -> Evaluation:
            fid = {0.25: float("nan"), 0.5: 3.0, 1.0: 1.0}[plan.widths[0]]
            if plan.widths == (0.5,) * 6:
                raise RuntimeError("the network is on fire")
            if plan.widths == (1.0,) * 6 and not self.mark.exists():
                self.mark.write_text("died once")
                os.kill(os.getpid(), signal.SIGKILL)
            mixed = plan.widths[0] != 0.25 and len(set(plan.widths)) > 1
            if mixed and not (stopped := self.mark.with_suffix(".stopped")).exists():
                stopped.write_text(str(plan.widths))
                os.kill(os.getpid(), signal.SIGSTOP)  # hangs so hard that nothing in the process can notice
            return Evaluation(fid, float(sum(plan.widths)), 1.0, "made", images, noise_seed)

        return evaluate


def test_failures_of_workers_are_results_and_the_search_goes_on(fresh: Path, cluster: None) -> None:
    # Not ahead: a process that ends before its result has travelled takes the plan before along.
    settings = tiny_settings(
        fresh,
        "budget.trials=12",
        "screen.proxy=none",
        "initial_plans={uniform: 3}",
        "workers.count=2",
        "workers.ahead=never",
    )
    problem = load_problem(settings)
    costs = load_or_measure_costs(problem, settings.search_directory)
    ledger = open_ledger(problem, costs, settings.search_directory)
    job = Job(problem.plan_of, 8, 0)
    run_trials(
        ledger, FailingLoad(fresh / "mark"), job, settings.workers, lambda: None, limit=30
    )  # longer than a process takes to start
    assert ledger.finished == 12
    results = {trial.user_attrs["genome"]: result_of(trial) for trial in ledger.trials}
    assert results["222"]["fid"] == 1.0  # killed once, tried again
    assert results["111"]["error"].startswith("RuntimeError: the network is on fire")
    assert results["111"]["error"].endswith("(attempt 3 of 3)")
    assert "not finite: fid nan" in results["000"]["error"]
    assert (fresh / "mark").exists()
    attempts = {trial.user_attrs["genome"]: trial.user_attrs.get("attempt", 1) for trial in ledger.trials}
    hopeless = {genome for genome in attempts if genome == "111" or genome.startswith("0")}
    assert {attempts[genome] for genome in hopeless} == {3}
    # The killed one, and the one that stopped: ended at the limit and tried again.
    said = (fresh / "mark.stopped").read_text()
    stopped = next(genome for genome in attempts if str(problem.plan_of(genome).widths) == said)
    assert {genome for genome, n in attempts.items() if n == 2} == {"222", stopped}
    assert np.isfinite(results[stopped]["fid"])
    # The other worker continued in the meantime.
    asked_before = next(trial.number for trial in ledger.trials if trial.user_attrs["genome"] == stopped)
    overtaken = [t for t in ledger.trials if t.number > asked_before]
    assert any(result_of(t)["elapsed"] < results[stopped]["elapsed"] for t in overtaken)


def test_lists_of_plans_survive_a_worker_that_dies(fresh: Path, cluster: None) -> None:
    settings = tiny_settings(fresh, "workers.count=2")
    times = tuple(float(t) for t in range(6, 0, -1))
    plans = [(Plan(times, (w,) * 6), 0) for w in (1.0, 0.5, 1.0)]
    plans.append((Plan(times, (1.0,) * 4 + (0.5,) * 2), 0))
    with PlanScorer(FailingLoad(fresh / "mark"), settings.workers, limit=4) as scorer:
        scored = scorer.score(plans, 8)
        there = set(map(id, scorer._all()))
        again = scorer.score(plans[2:3], 8)
        assert set(map(id, scorer._all())) == there  # they stay for the next list
    assert [e.fid for e in [*scored, *again]] == [1.0, pytest.approx(float("nan"), nan_ok=True), 1.0, 1.0, 1.0]
    assert "on fire" in scored[1].error


def test_a_driver_killed_at_any_moment_is_taken_up_again(fresh: Path) -> None:
    """SIGKILL in mid-search, then the same command: no evaluation lost, none counted twice."""
    config = fresh / "tiny.json"  # YAML reads JSON
    config.write_text(json.dumps(TINY | {"directory": str(fresh), "tracking": {"uri": None}}))
    command = [sys.executable, "-m", "stepfront", "search", str(config), "--set", "workers.count=1"]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    database = fresh / "tiny" / "search" / "study.db"
    finished = 0
    deadline = time.monotonic() + 120
    while finished < 3 and time.monotonic() < deadline and killed.poll() is None:
        time.sleep(0.05)
        finished = _finished(database)
    killed.kill()
    killed.wait()
    assert finished >= 3
    again = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert again.returncode == 0, again.stderr
    trials = pd.read_parquet(fresh / "tiny" / "search" / "trials.parquet")
    assert list(trials["trial"]) == list(range(9))
    assert trials["plan"].nunique() == 9


def _finished(database: Path) -> int:
    import sqlite3

    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            return connection.execute("select count(*) from trials where state = 'COMPLETE'").fetchone()[0]
    except sqlite3.Error:
        return 0


def test_two_drivers_in_one_directory(fresh: Path, cluster: None) -> None:
    from stepfront.search.storage.lock import directory_lock

    settings = tiny_settings(fresh)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, pathlib, stepfront.search.storage.lock as l\n"
            "with l.directory_lock(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()",
            str(settings.search_directory),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=f"in use by another stepfront \\(process {holder.pid}\\)"):
        do_search(fresh)
    holder.kill()
    holder.wait()
    with directory_lock(settings.search_directory):
        pass


def test_a_supernet_of_other_data_or_damaged_is_refused(fresh: Path) -> None:
    with pytest.raises(InputError, match="made from other data"):
        do_search(fresh, "data.limit=200")
    weights = fresh / "tiny" / "supernet" / "supernet.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(InputError, match="digest of the weights differs"):
        do_search(fresh)
    with pytest.raises(InputError, match="no supernet in"):
        do_search(fresh / "elsewhere")


def test_points_by_name_number_and_query(searched: Path) -> None:
    front = read_table(searched / "front.parquet")
    assert pick_point(front, "best")["fid"] == front["fid"].min()
    assert pick_point(front, "cheapest")["gflops"] == front["gflops"].min()
    assert pick_point(front, str(front["trial"].iloc[0]))["trial"] == front["trial"].iloc[0]
    bound = float(front["fid"].median())
    assert pick_point(front, f"fid<={bound}")["gflops"] == front.loc[front["fid"] <= bound, "gflops"].min()
    for bad in ("nonsense", "99999", "fid<=-1", "fid<=x"):
        with pytest.raises(InputError):
            pick_point(front, bad)
    assert isinstance(uniform_half_plan(searched), Plan)


def uniform_half_plan(directory: Path) -> Plan:
    return plan_of_row(read_table(directory / "front.parquet").iloc[0])


def test_the_real_evaluator_travels(trained: Path, cluster: None) -> None:
    settings = tiny_settings(trained)
    problem = load_problem(settings)
    costs = load_or_measure_costs(problem, settings.search_directory)
    load = LoadEvaluator(local_parts(problem, costs, 1))
    plan = problem.uniform_plan(0.5)
    with PlanScorer(load, settings.workers, limit=300) as scorer:
        (there,) = scorer.score([(plan, 5)], 16)
    here = load()(plan, 16, 5)
    assert (there.fid, there.paired) == (here.fid, here.paired)
    assert not here.error


def test_a_search_that_began_from_another_goes_on_when_that_is_gone(fresh: Path, cluster: None) -> None:
    parent = do_search(fresh, "budget.trials=14")
    child = tiny_settings(fresh, "name=child", f"supernet={fresh / 'tiny' / 'supernet'}", "budget.trials=6")
    settings = warm_settings(child, [parent])
    directory = run_search(settings, False, Silent(), lambda text: None)
    trials = pd.read_parquet(directory / "trials.parquet")
    assert f"front:{parent}" in set(trials["origin"])
    earlier = make_plan_features(load_problem(settings)).earlier
    assert len(earlier) == 1  # what the parent's 14 trials taught is handed over with its front
    shutil.rmtree(parent)
    run_search(extended_settings(directory, 3, None, None), False, Silent(), lambda text: None)
    assert len(pd.read_parquet(directory / "trials.parquet")) == 9


def test_a_finished_search_goes_on_with_more_budget(fresh: Path, cluster: None) -> None:
    directory = do_search(fresh)
    before = pd.read_parquet(directory / "trials.parquet")
    settings = extended_settings(fresh / "tiny", 5, None, None)
    run_search(settings, False, Silent(), lambda text: None)
    after = pd.read_parquet(directory / "trials.parquet")
    assert len(after) == 14
    pd.testing.assert_frame_equal(after[:9], before)
    assert resume_settings(fresh / "tiny") == settings
    with pytest.raises(InputError, match="possible: --trials, --minutes, --tflops"):
        extended_settings(fresh / "tiny", None, None, None)


def test_a_search_begins_with_the_front_of_an_earlier_one(searched: Path, fresh: Path, cluster: None) -> None:
    directory = do_search(
        fresh, f"initial_plans={{uniform: 3, 'front:{searched}': 4}}", "space.stages=6", "budget.trials=6"
    )
    trials = pd.read_parquet(directory / "trials.parquet")
    earlier = set(pd.read_parquet(searched / "front.parquet")["plan"])
    own = trials[trials["origin"] == f"front:{searched}"]
    assert len(own) >= 1
    assert set(own["plan"]) <= earlier


def test_a_cluster_of_one_listens_on_loopback_alone(cluster: None) -> None:
    import ray

    assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]


def test_fresh_deletes_nothing_before_the_settings_are_checked(fresh: Path, cluster: None) -> None:
    directory = do_search(fresh)
    before = sorted(path.name for path in directory.iterdir())
    with pytest.raises(InputError):
        do_search(fresh, "supernet=/nowhere", fresh=True)
    assert sorted(path.name for path in directory.iterdir()) == before
    supernet = fresh / "tiny" / "supernet"
    held = sorted(path.name for path in supernet.iterdir())
    for bad in ("data={format: npz, path: gone.npz}", "training.device=foo", "features={name: f, path: gone.pt}"):
        with pytest.raises(InputError):
            run_training(tiny_settings(fresh, bad), True, lambda report: None, lambda text: None)
    assert sorted(path.name for path in supernet.iterdir()) == held


def test_a_search_whose_supernet_was_trained_anew_is_not_read_with_it(fresh: Path, cluster: None) -> None:
    directory = do_search(fresh)
    run_training(tiny_settings(fresh, "training.steps=3"), True, lambda report: None, lambda text: None)
    settings = tiny_settings(fresh, "training.steps=3")
    with pytest.raises(InputError, match="used another supernet"):
        publish(settings, directory, True)
    with pytest.raises(InputError, match="used another supernet"):
        run_confirmation(directory, None, None)


def test_a_shared_database_holds_a_study_a_search(tmp_path: Path) -> None:
    from stepfront.search.study.optuna_storage import study_name

    names = {study_name("postgresql://x", tmp_path / run / "search") for run in ("a", "b")}
    assert len(names) == 2
    assert study_name(None, tmp_path / "a") == study_name("journal", tmp_path / "b")
