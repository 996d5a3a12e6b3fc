"""Packets of plans: how many travel together, and what becomes of them when something fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from stepfront.search.algorithm.trials import result_of
from stepfront.search.config import WorkerSettings
from stepfront.search.driver.open_ledger import open_ledger
from stepfront.search.execution.executor import run_trials
from stepfront.search.execution.tune_searcher import Job, LedgerSearcher, PacketSize
from stepfront.search.execution.tune_worker import EvaluationWorker
from stepfront.search.execution.worker import EvaluationError
from stepfront.search.problem.costs import load_or_measure_costs
from stepfront.search.problem.load import load_problem
from stepfront.search.study.ledger import Asked
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluation import Evaluation
from tests.search.conftest import tiny_settings
from tests.search.execution.travelling import Troubled


class Counting:
    """A ledger that asks for 0, 1, 2, ... up to its budget, and again for those that failed."""

    def __init__(self, budget: int, known: int = 0) -> None:
        self.remaining, self.asked, self.complete = budget, 0, [-1] * known
        self.again: list[Asked] = []
        self.failed: list[int] = []
        self.synced = 0, 0

    def ask(self) -> Asked | None:
        if self.again:
            return self.again.pop(0)
        if not self.remaining:
            return None
        self.remaining, self.asked = self.remaining - 1, self.asked + 1
        return Asked(self.asked - 1, str(self.asked - 1), 1)

    def tell(self, number: int, evaluation: Evaluation, worker: str) -> None:
        self.complete.append(number)

    def sync(self) -> None:
        self.synced = len(self.complete), len(self.failed)

    def fail(self, number: int, reason: str) -> None:
        self.failed.append(number)
        self.again.append(Asked(number, str(number), 2))


def made(seconds: float = 0.1, fid: float = 1.0) -> Evaluation:
    return Evaluation(fid, 1.0, 1.0, "made up", 8, 0, seconds)


@pytest.fixture
def searcher_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., LedgerSearcher]:
    """Searchers over `Counting`; each knows its number of places for good, as `workers.count` says it."""
    monkeypatch.setattr("stepfront.search.execution.placement.worker_count", lambda workers: workers.count)

    def make(budget: int, places: int, packet_seconds: float | None = None, known: int = 1000) -> LedgerSearcher:
        """Return a searcher whose evaluations take a second, with many results known."""
        workers = WorkerSettings(packet_seconds=packet_seconds, count=places)
        job = Job(lambda genome: Plan((1.0,), (1.0,)), 8, 0)
        searcher = LedgerSearcher(Counting(budget, known), job, workers, lambda: None, limit=600)  # type: ignore[arg-type]
        searcher._size.add(1.0)
        return searcher

    return make


def numbers(config: Any) -> list[int]:
    return [job["number"] for job in config["packet"]]


def finish(searcher: LedgerSearcher, trial_id: str, count: int, seconds: float = 1.0) -> None:
    searcher.on_trial_complete(trial_id, {"evaluations": [astuple(made(seconds))] * count, "worker": "w"})


# --- how many ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slots", "seconds", "plans"),
    [
        (1, [0.01], 1),  # one worker's search is the same at every run
        (64, [], 1),  # nothing is known of the evaluations yet
        (64, [1.0], 5),
        (64, [40.0, 1.0, 1.0], 5),  # the first one compiled
        (64, [30.0], 1),
        (2, [0.5], 1),
        (2, [0.1], 5),
        (8, [1.0], 2),
        (64, [0.0], 5000),  # an evaluator that does not say
    ],
)
def test_a_packet_takes_about_five_seconds_and_less_with_few_workers(
    slots: int, seconds: list[float], plans: int
) -> None:
    size = PacketSize(None, 600.0)
    for each in seconds:
        size.add(each)
    assert size.plans(slots, 10**6, None) == plans


def test_a_packet_is_bounded_by_results_budget_settings_and_time_limit() -> None:
    size = PacketSize(None, 600.0)
    size.add(0.5)
    assert [size.plans(64, known, None) for known in (0, 63, 128, 640)] == [1, 1, 2, 10]
    assert [size.plans(64, 10**6, remaining) for remaining in (0, 63, 128, 640)] == [1, 1, 2, 10]
    for longest, limit, plans in ((0.0, 600.0, 1), (2.0, 600.0, 4), (None, 4.0, 2), (2.0, 1.0, 1)):
        size = PacketSize(longest, limit)
        size.add(0.5)
        assert size.plans(64, 10**6, None) == plans


@pytest.mark.parametrize("budget", [1, 3, 4, 9, 50])
@pytest.mark.parametrize("packet_seconds", [None, 0.0, 5.0])
def test_the_budget_is_met_exactly_and_its_last_plans_are_for_all_workers(
    searcher_of: Callable[..., LedgerSearcher], budget: int, packet_seconds: float | None
) -> None:
    searcher, handed = searcher_of(budget, 3, packet_seconds), 0
    running: dict[str, int] = {}
    while (config := searcher.suggest(f"t{handed}")) != Searcher.FINISHED:
        if config is not None:
            running[f"t{handed}"] = len(numbers(config))
            handed += 1
            left = searcher._ledger.remaining or 0
            assert len(numbers(config)) <= max(1, (left + len(numbers(config))) // 3)
            continue
        assert len(running) == 3 or not searcher._ledger.remaining, "a free worker waits only at the end"
        finish(searcher, first := next(iter(running)), running.pop(first))
    assert sorted(searcher._ledger.complete)[1000:] == list(range(budget))  # type: ignore[type-var]
    assert not running


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_plan_that_raises_fails_alone(searcher_of: Callable[..., LedgerSearcher]) -> None:
    searcher = searcher_of(100, 2, 5.0)
    assert numbers(searcher.suggest("a")) == [0, 1, 2, 3, 4]
    error = EvaluationError("on fire")
    error.before = [astuple(made()), astuple(made())], "w"
    searcher.on_plan_failed("a", error)
    ledger = searcher._ledger
    assert (ledger.complete[1000:], ledger.failed) == ([0, 1], [2])  # type: ignore[comparison-overlap]
    assert numbers(searcher.suggest("b"))[:2] == [3, 4], "those after it were not tried, and come first"
    assert numbers(searcher.suggest("c")) == [2], "what was tried before travels alone"


def test_the_plans_of_a_lost_worker_travel_alone_and_are_charged_nothing(
    searcher_of: Callable[..., LedgerSearcher],
) -> None:
    searcher = searcher_of(100, 2, 2.0)
    assert numbers(searcher.suggest("a")) == [0, 1]
    searcher.on_trial_lost("a", "its worker died")
    assert searcher._ledger.failed == []  # type: ignore[comparison-overlap]
    assert [numbers(searcher.suggest(name)) for name in "bc"] == [[0], [1]]
    searcher.on_trial_lost("c", "its worker died")
    finish(searcher, "b", 1)
    assert searcher._ledger.failed == [1]  # type: ignore[comparison-overlap]
    assert [numbers(searcher.suggest(name)) for name in "de"] == [[1], [2, 3]]


def test_a_late_result_of_a_lost_packet_changes_nothing(searcher_of: Callable[..., LedgerSearcher]) -> None:
    searcher = searcher_of(100, 2, 2.0)
    searcher.suggest("a")
    searcher.on_trial_lost("a", "its worker died")
    finish(searcher, "a", 2)
    assert len(searcher._ledger.complete) == 1000


def test_what_is_recorded_survives_a_power_failure_also_where_it_failed(
    searcher_of: Callable[..., LedgerSearcher],
) -> None:
    searcher = searcher_of(100, 1)
    searcher.suggest("a")
    finish(searcher, "a", 1)
    assert searcher._ledger.synced == (1001, 0)  # type: ignore[attr-defined]
    searcher.suggest("b")
    searcher.on_trial_lost("b", "its worker died")
    assert searcher._ledger.synced == (1001, 1)  # type: ignore[attr-defined]


def test_a_plan_that_can_not_be_read_ends_the_search_with_its_reason(
    searcher_of: Callable[..., LedgerSearcher],
) -> None:
    searcher = searcher_of(100, 1)
    searcher._job = Job(lambda genome: Plan((1.0,), (float("half"),)), 8, 0)
    assert searcher.suggest("a") == Searcher.FINISHED
    assert "half" in str(searcher.error)
    assert searcher.in_flight == []


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


def worker_with(load: Recorder, monkeypatch: pytest.MonkeyPatch) -> EvaluationWorker:
    monkeypatch.setattr("stepfront.search.execution.tune_worker.worker_name", lambda: "w")
    worker = EvaluationWorker.__new__(EvaluationWorker)  # Tune's own part needs a session
    worker.setup({}, load)
    return worker


def test_a_worker_evaluates_packets_in_their_order_and_loads_once(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = worker_with(recorder := Recorder(), monkeypatch)
    for packet in ([3, 1], [2]):
        worker.reset_config({"packet": [job_of(number) for number in packet]})
        result = worker.step()
        assert [Evaluation(*values).fid for values in result["evaluations"]] == packet
        assert (result["worker"], result["done"]) == ("w", True)
    assert (recorder.done, recorder.loads) == ([3, 1, 2], 1)


def test_a_worker_begins_nothing_after_a_failure_and_sends_what_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = worker_with(recorder := Recorder(), monkeypatch)
    worker.reset_config({"packet": [job_of(0), job_of(1, width=0.5), job_of(2)]})
    with pytest.raises(EvaluationError, match=r"RuntimeError: on fire \(test_tune_searcher.py") as raised:
        worker.step()
    assert raised.value.before == ([astuple(made(fid=0.0))], "w")
    assert recorder.done == [0, 1]


# --- with Tune --------------------------------------------------------------------------------------------------------


class Packets:
    """Counts the most plans that were read between two results: the largest packet is one of them."""

    def __init__(self) -> None:
        self.largest = self._now = 0

    def job(self, plan_of: Callable[[str], Plan]) -> Job:
        """Return a job that counts its plans."""

        def counted(genome: str) -> Plan:
            self._now += 1
            self.largest = max(self.largest, self._now)
            return plan_of(genome)

        return Job(counted, 8, 0)

    def end(self) -> None:
        """Begin to count again."""
        self._now = 0


def test_packets_lose_no_result_and_repeat_only_what_was_lost(fresh: Path, cluster: None) -> None:
    overrides = ("budget.trials=40", "screen.proxy=none", "initial_plans={uniform: 3}", "workers.count=2")
    settings = tiny_settings(fresh, *overrides, "space.stages=6", "workers.attempts=2")
    problem = load_problem(settings)
    costs = load_or_measure_costs(problem, settings.search_directory)
    ledger = open_ledger(problem, costs, settings.search_directory)
    packets = Packets()
    run_trials(ledger, Troubled(fresh), packets.job(problem.plan_of), settings.workers, packets.end, limit=60)
    assert (len(ledger.trials), len(ledger.complete), ledger.finished) == (40, 39, 40)
    (error,) = [result_of(trial)["error"] for trial in ledger.trials if result_of(trial).get("error")]
    assert error.startswith("RuntimeError: on fire")
    assert error.endswith("(attempt 2 of 2)")
    plans = (fresh / "begun").read_text().splitlines()
    again = {plan: plans.count(plan) - 1 for plan in plans if plans.count(plan) > 1}
    assert again.pop(str((0.5,) * 6)) == 1
    assert set(again.values()) == {1}, "the plans of the packet that was lost"
    assert 1 <= len(again) <= packets.largest
    assert packets.largest > 1
    assert {trial.user_attrs.get("attempt", 1) for trial in ledger.complete} == {1}, "none of them was charged"
