"""Prefetched plans: which worker gets which, and what becomes of them when something fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import astuple
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from stepfront.search.algorithm.trials import result_of
from stepfront.search.config import WorkerSettings
from stepfront.search.driver.open_ledger import open_ledger
from stepfront.search.execution.executor import run_trials
from stepfront.search.execution.tune_searcher import Job, LedgerSearcher
from stepfront.search.execution.worker import NOT_TRIED, EvaluationError, JobQueue
from stepfront.search.problem.costs import load_or_measure_costs
from stepfront.search.problem.load import load_problem
from stepfront.search.study.ledger import Asked, Ledger
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluation import Evaluation
from tests.search.conftest import tiny_settings


class Counting:
    """A ledger that asks for 0, 1, 2, ... up to its budget."""

    def __init__(self, budget: int) -> None:
        self.remaining, self.asked, self.told, self.failed = budget, 0, [], []  # type: ignore[var-annotated]

    def ask(self) -> Asked | None:
        if not self.remaining:
            return None
        self.remaining, self.asked = self.remaining - 1, self.asked + 1
        return Asked(self.asked - 1, str(self.asked - 1), 1)

    def tell(self, number: int, evaluation: Evaluation, worker: str) -> None:
        self.told.append(number)

    def fail(self, number: int, reason: str) -> None:
        self.failed.append(number)


def made(seconds: float = 0.1, fid: float = 1.0) -> Evaluation:
    return Evaluation(fid, 1.0, 1.0, "made up", 8, 0, seconds)


@pytest.fixture
def searcher_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., LedgerSearcher]:
    """Searchers over `Counting`; each knows its number of places for good, as `workers.count` says it."""
    monkeypatch.setattr("stepfront.search.execution.tune_searcher.worker_count", lambda workers: workers.count)

    def make(budget: int, places: int, ahead: str) -> LedgerSearcher:
        job = Job(lambda genome: Plan((1.0,), (1.0,)), 8, 0)
        workers = WorkerSettings(ahead=ahead, count=places)  # type: ignore[arg-type]
        return LedgerSearcher(Counting(budget), job, workers, lambda: None)  # type: ignore[arg-type]

    return make


def numbers(config: Any) -> tuple[int, int | None]:
    return config["job"]["number"], config["prefetched"] and config["prefetched"]["number"]


def finish(searcher: LedgerSearcher, trial_id: str, seconds: float = 0.1) -> None:
    searcher.on_trial_complete(trial_id, {"evaluation": astuple(made(seconds)), "worker": "w"})


def test_a_prefetched_plan_follows_the_trial_that_it_was_handed_out_with(
    searcher_of: Callable[..., LedgerSearcher],
) -> None:
    searcher = searcher_of(100, 2, "always")
    assert numbers(searcher.suggest("a")) == (0, 1)
    assert numbers(searcher.suggest("b")) == (2, 3)
    assert searcher.suggest("c") is None, "both places are taken"
    finish(searcher, "b")
    assert numbers(searcher.suggest("c")) == (3, 4)
    finish(searcher, "a")
    assert numbers(searcher.suggest("d")) == (1, 5)


def test_when_places_go_away_every_other_worker_still_gets_what_it_was_promised(
    searcher_of: Callable[..., LedgerSearcher],
) -> None:
    searcher = searcher_of(60, 3, "always")
    running = {name: numbers(searcher.suggest(name)) for name in ("a-0", "b-0", "c-0")}
    for turn in range(1, 50):
        if turn == 5:
            searcher._slots = 2  # known for some seconds
        if not running:
            break
        first = next(iter(running))
        _, promised = running.pop(first)
        finish(searcher, first)
        name = f"{first[0]}-{turn}"
        config = searcher.suggest(name)
        if config is None or config == Searcher.FINISHED:
            continue  # its worker is let go
        assert promised in (None, numbers(config)[0])
        running[name] = numbers(config)
    told = searcher._ledger.told  # type: ignore[attr-defined]
    assert len(told) == len(set(told)) >= 45
    assert len(running) == 2
    assert set(range(max(told))) - set(told) <= {number for pair in running.values() for number in pair}


def test_what_a_lost_worker_was_promised_is_handed_to_the_next(searcher_of: Callable[..., LedgerSearcher]) -> None:
    searcher = searcher_of(100, 2, "always")
    searcher.suggest("a")
    searcher.on_trial_lost("a", "its worker died")
    assert numbers(searcher.suggest("b"))[0] == 1
    assert searcher._ledger.failed == [0], "the plan that was only promised has not been tried"  # type: ignore[attr-defined]


def test_a_plan_that_a_broken_worker_did_not_begin_is_handed_on_and_charged_nothing(
    searcher_of: Callable[..., LedgerSearcher],
) -> None:
    searcher = searcher_of(100, 2, "never")
    searcher.suggest("a")
    searcher.on_trial_lost("a", NOT_TRIED)
    assert searcher._ledger.failed == []  # type: ignore[attr-defined]
    assert numbers(searcher.suggest("b"))[0] == 0


@pytest.mark.parametrize("budget", [1, 3, 4, 9])
@pytest.mark.parametrize("ahead", ["always", "never"])
def test_the_budget_is_met_exactly_and_its_last_plans_wait_for_free_workers(
    searcher_of: Callable[..., LedgerSearcher], budget: int, ahead: str
) -> None:
    searcher, ends = searcher_of(budget, 3, ahead), 0
    running: list[str] = []
    while (config := searcher.suggest(f"t{ends}-{len(running)}")) != Searcher.FINISHED:
        if config is not None:
            assert ahead == "always" or config["prefetched"] is None
            running.append(f"t{ends}-{len(running)}")
            continue
        # Two at the end of the budget that one worker holds are never one too many for a worker that is idle.
        assert len(running) == 3 or not searcher._prefetched
        finish(searcher, running.pop(0))
        ends += 1
    assert sorted(searcher._ledger.told) == list(range(budget))
    assert not running


@pytest.mark.parametrize(
    ("places", "seconds", "handed"),
    [
        (2, [0.5], True),
        (2, [40.0, 0.5, 0.5], True),  # the first one compiled
        (2, [60.0], False),
        (1, [0.5], False),  # one worker's search is the same at every run
    ],
)
def test_auto_prefetches_only_where_it_pays(
    searcher_of: Callable[..., LedgerSearcher], places: int, seconds: list[float], handed: bool
) -> None:
    searcher = searcher_of(100, places, "auto")
    assert numbers(searcher.suggest("a"))[1] is None, "nothing is known of the evaluations yet"
    finish(searcher, "a", seconds[0])
    for i, each in enumerate(seconds[1:]):
        searcher.suggest(f"b{i}")
        finish(searcher, f"b{i}", each)
    assert (numbers(searcher.suggest("c"))[1] is not None) == handed


# --- in the worker ----------------------------------------------------------------------------------------------------


def job_of(number: int, width: float = 1.0) -> dict[str, Any]:
    return {"number": number, "plan": ((1.0,), (width,), "ddim", None, ()), "images": 8, "noise_seed": number}


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
    deadline = time.monotonic() + 60
    while not said():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_queue_begins_the_next_job_by_itself_and_evaluates_none_twice() -> None:
    recorder = Recorder()
    queue = JobQueue(recorder)
    assert queue.evaluate(job_of(0), job_of(1)).fid == 0
    until(lambda: recorder.done == [0, 1])
    assert queue.evaluate(job_of(1), None).fid == 1
    assert queue.evaluate(job_of(2), None).fid == 2
    assert recorder.done == [0, 1, 2]
    assert recorder.loads == 1


def test_a_queue_evaluates_what_it_is_asked_whatever_was_prefetched() -> None:
    queue = JobQueue(Recorder())
    queue.evaluate(job_of(0), job_of(1))
    assert queue.evaluate(job_of(7), job_of(8)).fid == 7
    assert queue.evaluate(job_of(8), None).fid == 8


def test_a_queue_finds_what_it_has_begun_even_if_another_job_came_between() -> None:
    recorder = Recorder()
    queue = JobQueue(recorder)
    queue.evaluate(job_of(0), job_of(1))
    until(lambda: recorder.done == [0, 1])
    assert queue.evaluate(job_of(7), job_of(1)).fid == 7
    assert queue.evaluate(job_of(1), None).fid == 1
    assert recorder.done == [0, 1, 7]


def test_a_queue_that_is_closed_begins_nothing_more() -> None:
    recorder = Recorder()
    queue = JobQueue(recorder)
    queue.evaluate(job_of(0), None)
    queue.close(timeout=60)
    queue._begin(job_of(1))
    assert not queue._thread.is_alive()
    assert recorder.done == [0]


def test_a_queue_begins_nothing_after_a_failure() -> None:
    recorder = Recorder()
    queue = JobQueue(recorder)
    with pytest.raises(EvaluationError, match=r"RuntimeError: on fire \(test_tune_searcher.py"):
        queue.evaluate(job_of(0, width=0.5), job_of(1))
    with pytest.raises(EvaluationError, match=NOT_TRIED):
        queue.evaluate(job_of(1), None)
    assert recorder.done == [0]


def test_a_prefetched_failure_is_raised_when_its_result_is_asked_for() -> None:
    queue = JobQueue(Recorder())
    assert queue.evaluate(job_of(0), job_of(1, width=0.5)).fid == 0
    with pytest.raises(EvaluationError, match="on fire"):
        queue.evaluate(job_of(1, width=0.5), None)


# --- with Tune --------------------------------------------------------------------------------------------------------


class Sleeping:
    """An evaluator that sleeps, says in `paired` when it began, and notes in a file that it did."""

    def __init__(self, begun: Path) -> None:
        self.begun = begun

    def __call__(self) -> Callable[[Plan, int, int], Evaluation]:
        def evaluate(plan: Plan, images: int, noise_seed: int) -> Evaluation:
            began = time.time()
            with open(self.begun, "a") as file:
                file.write(".")
            time.sleep(0.4)
            return Evaluation(10 - sum(plan.widths), sum(plan.widths), 1.0, "made up", images, noise_seed, paired=began)

        return evaluate


def searched(fresh: Path, on_result: Callable[[], None], *overrides: str) -> tuple[Ledger, int]:
    """Return the ledger of a search with an evaluator that sleeps, and how many evaluations were begun."""
    basic = ("budget.trials=16", "screen.proxy=none", "initial_plans={uniform: 3}", "workers.ahead=always")
    settings = tiny_settings(fresh, *basic, *overrides)
    problem = load_problem(settings)
    costs = load_or_measure_costs(problem, settings.search_directory)
    ledger = open_ledger(problem, costs, settings.search_directory)
    job = Job(problem.plan_of, 8, 0)
    run_trials(ledger, Sleeping(fresh / "begun"), job, settings.workers, on_result, limit=60)
    assert len(ledger.trials) == len(ledger.complete) == 16
    assert len({trial.user_attrs["genome"] for trial in ledger.trials}) == 16
    return ledger, len((fresh / "begun").read_text())


def test_a_worker_goes_on_before_the_driver_knows_its_result(fresh: Path, cluster: None) -> None:
    told: list[float] = []

    def slow_driver() -> None:
        told.append(time.time())
        time.sleep(0.2)

    ledger, begun = searched(fresh, slow_driver, "workers.count=2")
    assert begun == 16
    # `complete` is in the order of the results, as `told` is.
    results = [(result_of(trial), at) for trial, at in zip(ledger.complete, told, strict=True)]
    gone_on = 0
    for worker in {result["worker"] for result, _ in results}:
        own = [(result["paired"], at) for result, at in results if result["worker"] == worker]
        gone_on += sum(began < at_before for (_, at_before), (began, _) in pairwise(own))
    assert gone_on >= 7, "half of the evaluations that have one before them"


def test_a_place_that_goes_away_makes_no_plan_be_evaluated_twice(
    fresh: Path, cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []
    searcher = "stepfront.search.execution.tune_searcher"
    monkeypatch.setattr(f"{searcher}.worker_count", lambda workers: 2 if len(told) < 5 else 1)
    monkeypatch.setattr(f"{searcher}._SLOTS_SECONDS", 0.0)
    _, begun = searched(fresh, lambda: told.append(0.0))
    assert begun <= 17, "the plan that the lost place was promised may have been begun there"
