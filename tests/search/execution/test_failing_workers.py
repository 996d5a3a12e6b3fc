"""Workers on Ray whose evaluations raise, return nonsense, stop for ever or kill their process; and one that works."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pytest

from stepfront.errors import InputError
from stepfront.search.algorithm.trials import result_of
from stepfront.search.config import WorkerSettings
from stepfront.search.driver.open_ledger import open_ledger
from stepfront.search.execution import placement
from stepfront.search.execution.executor import run_trials
from stepfront.search.execution.plan_scorer import PlanScorer
from stepfront.search.execution.tune_searcher import Job
from stepfront.search.execution.worker import LoadEvaluator
from stepfront.search.problem.costs import load_or_measure_costs
from stepfront.search.problem.evaluator_parts import local_parts
from stepfront.search.problem.load import load_problem
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluation import Evaluation
from tests.search.conftest import tiny_settings
from tests.search.execution.travelling import FailingLoad


@dataclass(frozen=True)
class Scored:
    """The score of a plan by a worker, the one that it should be, and the seconds until it was there."""

    there: Evaluation
    here: Evaluation
    seconds: float


@pytest.fixture(scope="module")
def scored(trained: Path, cluster: None) -> Scored:
    """Return what a worker of the real evaluator scores; it starts as the failing ones do."""
    settings = tiny_settings(trained)
    problem = load_problem(settings)
    costs = load_or_measure_costs(problem, settings.search_directory)
    load = LoadEvaluator(local_parts(problem, costs, 1))
    plan, begin = problem.uniform_plan(0.5), time.monotonic()
    with PlanScorer(load, settings.workers, limit=300) as scorer:
        (there,) = scorer.score([(plan, 5)], 16)
    return Scored(there, load()(plan, 16, 5), time.monotonic() - begin)


def test_the_real_evaluator_travels(scored: Scored) -> None:
    assert (scored.there.fid, scored.there.paired) == (scored.here.fid, scored.here.paired)
    assert not scored.here.error


def test_failures_of_workers_are_results_and_the_search_goes_on(
    fresh: Path, cluster: None, scored: Scored, caplog: pytest.LogCaptureFixture
) -> None:
    basic = ("budget.trials=9", "screen.proxy=none", "initial_plans={uniform: 3}", "workers.count=2")
    settings = tiny_settings(fresh, *basic, "workers.packet_seconds=0", "workers.attempts=2")
    problem = load_problem(settings)
    costs = load_or_measure_costs(problem, settings.search_directory)
    ledger = open_ledger(problem, costs, settings.search_directory)
    job = Job(problem.plan_of, 8, 0)
    limit = max(10, 3 * scored.seconds)  # longer than a process takes to start
    run_trials(ledger, FailingLoad(fresh / "mark"), job, settings.workers, lambda: None, limit)
    assert ledger.finished == 9
    results = {trial.user_attrs["genome"]: result_of(trial) for trial in ledger.trials}
    assert results["222"]["fid"] == 1.0  # killed once, tried again
    assert results["111"]["error"].startswith("RuntimeError: the network is on fire")
    assert results["111"]["error"].endswith("(attempt 2 of 2)")
    assert "not finite: fid nan" in results["000"]["error"]
    assert (fresh / "mark").exists()
    attempts = {trial.user_attrs["genome"]: trial.user_attrs.get("attempt", 1) for trial in ledger.trials}
    hopeless = {genome for genome in attempts if genome == "111" or genome.startswith("0")}
    assert hopeless == {genome for genome, result in results.items() if result.get("error")}
    # The killed one, and the one that stopped: ended at the limit and tried again.
    said = (fresh / "mark.stopped").read_text()
    stopped = next(genome for genome in attempts if str(problem.plan_of(genome).widths) == said)
    assert {genome for genome, n in attempts.items() if n == 2} == hopeless | {"222", stopped}
    assert np.isfinite(results[stopped]["fid"])
    assert "1 plan is scored again: its worker died" in caplog.messages
    assert f"1 plan is scored again: it took longer than {limit:.0f} s (workers.limit_minutes)" in caplog.messages
    # The other worker continued in the meantime.
    asked_before = next(trial.number for trial in ledger.trials if trial.user_attrs["genome"] == stopped)
    overtaken = [t for t in ledger.trials if t.number > asked_before]
    assert any(result_of(t)["elapsed"] < results[stopped]["elapsed"] for t in overtaken)


def test_lists_of_plans_survive_a_worker_that_dies(
    fresh: Path, cluster: None, caplog: pytest.LogCaptureFixture
) -> None:
    settings = tiny_settings(fresh, "workers.count=2", "workers.attempts=2")
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
    said = [message.partition(" (")[0] for message in caplog.messages if "again" in message]
    on_fire = "RuntimeError: the network is on fire"
    assert f"a plan is scored again: {on_fire}" in said
    # In any order; a worker that died is noticed within the limit, or at it.
    reasons = (on_fire, "its worker died", "it took longer than 4 s")
    assert set(said) <= {f"a plan is scored again: {why}" for why in reasons}
    assert len(said) >= 3


def test_a_list_without_any_node_says_what_it_lacks(
    fresh: Path, cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker needs a slot on a cluster whose nodes are gone; on one of several machines it waits for a node."""
    settings = tiny_settings(fresh, "workers.count=1", "workers.cpus=1000000")
    with PlanScorer(FailingLoad(fresh / "mark"), settings.workers, limit=60) as scorer:
        slots = chain([1], repeat(0))  # a node, which is gone when its worker would start
        monkeypatch.setattr(placement, "_slots", lambda workers: next(slots))
        none = r"a worker needs 1e\+06 CPUs and 0 GPUs on one machine; the cluster has"
        with pytest.raises(InputError, match=none):
            scorer.score([(Plan((6.0, 1.0), (1.0, 1.0)), 0)], 8)
    asked: list[WorkerSettings] = []
    monkeypatch.setattr(placement, "_first_slots", lambda workers: len(asked.append(workers) or asked))
    workers = settings.workers.model_copy(update={"address": "10.0.0.1:6379"})
    with PlanScorer(FailingLoad(fresh / "mark"), workers, limit=60) as scorer:
        scorer._start()
        assert scorer._advance() is False
    assert asked == [workers]


def test_a_cluster_of_one_listens_on_loopback_alone(cluster: None) -> None:
    import ray

    assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]
