"""Plans that are handed to a worker ahead of time: who gets which, and what becomes of them when something fails."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from search import run
from search.config import WorkerSettings
from search.costs import load_or_measure_costs
from search.executor import run_trials
from search.ingredients import Ingredients
from search.searcher import Job, LedgerSearcher
from search.study import Asked
from search.worker import EvaluationError, Lane
from tests.search.conftest import tiny_settings
from trainers.evaluation import Evaluation
from trainers.plan import Plan


class Counting:
    """A ledger that asks for 0, 1, 2, ... up to its budget."""

    def __init__(self, budget: int) -> None:
        self.left, self.asked, self.told, self.failed = budget, 0, [], []  # type: ignore[var-annotated]

    def ask(self) -> Asked | None:
        if not self.left:
            return None
        self.left, self.asked = self.left - 1, self.asked + 1
        return Asked(self.asked - 1, str(self.asked - 1), 1)

    def tell(self, number: int, evaluation: Evaluation, worker: str) -> None:
        self.told.append(number)

    def fail(self, number: int, reason: str) -> None:
        self.failed.append(number)


def made(seconds: float = 0.1, fid: float = 1.0) -> Evaluation:
    return Evaluation(fid, 1.0, 1.0, "made up", 8, 0, seconds)


@pytest.fixture
def searcher_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., LedgerSearcher]:
    def make(budget: int, places: int, ahead: str) -> LedgerSearcher:
        monkeypatch.setattr("search.searcher.worker_count", lambda workers: places)
        job = Job(lambda genome: Plan((1.0,), (1.0,)), 8, 0)
        return LedgerSearcher(Counting(budget), job, WorkerSettings(ahead=ahead), lambda: None)  # type: ignore[arg-type]

    return make


def numbers(config: Any) -> tuple[int, int | None]:
    return config["job"]["number"], config["ahead"] and config["ahead"]["number"]


def finish(searcher: LedgerSearcher, trial_id: str, seconds: float = 0.1) -> None:
    searcher.on_trial_complete(trial_id, {"evaluation": astuple(made(seconds)), "worker": "w"})


def test_a_promised_plan_follows_the_trial_that_it_was_handed_with(searcher_of: Callable[..., LedgerSearcher]) -> None:
    searcher = searcher_of(100, 2, "always")
    assert numbers(searcher.suggest("a")) == (0, 1)
    assert numbers(searcher.suggest("b")) == (2, 3)
    assert searcher.suggest("c") is None, "both places are taken"
    finish(searcher, "b")
    finish(searcher, "a")
    assert numbers(searcher.suggest("c")) == (3, 4), "b's worker was free first"
    assert numbers(searcher.suggest("d")) == (1, 5)


def test_what_a_lost_worker_was_promised_is_handed_to_the_next(searcher_of: Callable[..., LedgerSearcher]) -> None:
    searcher = searcher_of(100, 2, "always")
    searcher.suggest("a")
    searcher.lost("a", "its worker died")
    assert numbers(searcher.suggest("b"))[0] == 1
    assert searcher._ledger.failed == [0], "the plan that was only promised has not been tried"  # type: ignore[attr-defined]


@pytest.mark.parametrize("budget", [1, 3, 4, 9])
@pytest.mark.parametrize("ahead", ["always", "never"])
def test_the_budget_is_met_exactly_and_its_last_plans_wait_for_free_workers(
    searcher_of: Callable[..., LedgerSearcher], budget: int, ahead: str
) -> None:
    searcher, ends = searcher_of(budget, 3, ahead), 0
    running: list[str] = []
    while (config := searcher.suggest(f"t{ends}-{len(running)}")) != Searcher.FINISHED:
        if config is not None:
            assert ahead == "always" or config["ahead"] is None
            running.append(f"t{ends}-{len(running)}")
            continue
        # Two at the end of the budget that one worker holds are never one too many for a worker that is idle.
        assert len(running) == 3 or not searcher._promised
        finish(searcher, running.pop(0))
        ends += 1
    assert sorted(searcher._ledger.told) == list(range(budget))
    assert not running


def test_auto_hands_ahead_only_where_it_pays(searcher_of: Callable[..., LedgerSearcher]) -> None:
    short, long, alone = searcher_of(100, 2, "auto"), searcher_of(100, 2, "auto"), searcher_of(100, 1, "auto")
    for searcher, places, seconds in ((short, 2, 0.5), (long, 2, 60.0), (alone, 1, 0.5)):
        searcher._slots, searcher._slots_known = places, time.monotonic()
        assert numbers(searcher.suggest("a")) == (0, None), "nothing is known of the evaluations yet"
        finish(searcher, "a", seconds)
    assert numbers(short.suggest("b")) == (1, 2)
    assert numbers(long.suggest("b")) == (1, None)
    assert numbers(alone.suggest("b")) == (1, None), "one worker's search is the same at every run"


# --- in the worker ----------------------------------------------------------------------------------------------------


def job_of(number: int, width: float = 1.0) -> dict[str, Any]:
    return {"number": number, "plan": ((1.0,), (width,), "ddim"), "images": 8, "noise_seed": number}


class Recorder:
    """Notes what was evaluated; a plan of width 0.5 raises."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.loads = 0

    def __call__(self) -> Callable[[Plan, int, int], Evaluation]:
        self.loads += 1

        def evaluate(plan: Plan, images: int, noise_seed: int) -> Evaluation:
            self.done.append(noise_seed)
            if plan.widths == (0.5,):
                raise RuntimeError("on fire")
            return made(fid=float(noise_seed))

        return evaluate


def until(said: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not said():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_lane_begins_the_next_job_by_itself_and_evaluates_none_twice() -> None:
    recorder = Recorder()
    lane = Lane(recorder)
    assert lane.evaluate(job_of(0), job_of(1)).fid == 0
    until(lambda: recorder.done == [0, 1])
    assert lane.evaluate(job_of(1), None).fid == 1
    assert lane.evaluate(job_of(2), None).fid == 2
    assert recorder.done == [0, 1, 2]
    assert recorder.loads == 1


def test_a_lane_evaluates_what_it_is_asked_whatever_it_was_handed_ahead() -> None:
    lane = Lane(Recorder())
    lane.evaluate(job_of(0), job_of(1))
    assert lane.evaluate(job_of(7), job_of(8)).fid == 7
    assert lane.evaluate(job_of(8), None).fid == 8


def test_a_lane_begins_nothing_after_a_failure() -> None:
    recorder = Recorder()
    lane = Lane(recorder)
    with pytest.raises(EvaluationError, match=r"RuntimeError: on fire \(test_searcher.py"):
        lane.evaluate(job_of(0, width=0.5), job_of(1))
    with pytest.raises(EvaluationError, match="the evaluation before failed"):
        lane.evaluate(job_of(1), None)
    assert recorder.done == [0]


def test_a_failure_ahead_is_raised_when_its_result_is_asked_for() -> None:
    lane = Lane(Recorder())
    assert lane.evaluate(job_of(0), job_of(1, width=0.5)).fid == 0
    with pytest.raises(EvaluationError, match="on fire"):
        lane.evaluate(job_of(1, width=0.5), None)


# --- with Tune --------------------------------------------------------------------------------------------------------


class Sleeping:
    """An evaluator that sleeps, and says in `paired` when it began."""

    def __call__(self) -> Callable[[Plan, int, int], Evaluation]:
        def evaluate(plan: Plan, images: int, noise_seed: int) -> Evaluation:
            began = time.time()
            time.sleep(0.5)
            return Evaluation(10 - sum(plan.widths), sum(plan.widths), 1.0, "made up", images, noise_seed, paired=began)

        return evaluate


def test_a_worker_goes_on_before_the_driver_knows_its_result(fresh: Path, cluster: None) -> None:
    """A driver that takes 0.2 s for a result: workers that are handed their plans ahead do not wait for it."""
    settings = tiny_settings(
        fresh, "budget.trials=16", "screen.rung=none", "seeds={uniform: 3}", "workers.count=2", "workers.ahead=always"
    )
    ingredients = Ingredients.load(settings)
    costs = load_or_measure_costs(ingredients, settings.search_directory)
    ledger = run.open_ledger(ingredients, costs, settings.search_directory)
    run_trials(ledger, Sleeping(), Job(ingredients.plan_of, 8, 0), settings.workers, lambda: time.sleep(0.2), limit=30)
    results = [ledger.result(trial) for trial in ledger.trials]
    assert len(results) == ledger.finished == 16
    assert len({t.user_attrs["genome"] for t in ledger.trials}) == 16
    pauses = []
    for worker in {result["worker"] for result in results}:
        begins = sorted(result["paired"] for result in results if result["worker"] == worker)
        pauses += [after - before - 0.5 for before, after in itertools.pairwise(begins)]
    pauses.sort()
    assert pauses[len(pauses) // 2] < 0.1, "half the driver's time for a result"
