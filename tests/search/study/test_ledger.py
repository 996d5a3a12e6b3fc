"""Check what a ledger asks, records, and continues after an interruption, in every storage that needs no server."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from stepfront.search.algorithm.nsga2 import BlockNSGAII
from stepfront.search.algorithm.trials import GENOME, Proposal, result_of
from stepfront.search.config import VariationSettings
from stepfront.search.genomes.encodings import Stages
from stepfront.search.study.budget import Limits
from stepfront.search.study.ledger import Asked, Ledger
from stepfront.search.study.optuna_storage import open_storage
from stepfront.trainers.evaluation import Evaluation

ENCODING = Stages(20, (0.25, 0.5, 0.75, 1.0), False, 10)
INITIAL = [Proposal(g * 10, "uniform") for g in "3012"]
STORAGES = ["sqlite", "journal", "memory"]


def make_ledger(kind: str, directory: Path, **changes) -> Ledger:  # type: ignore[no-untyped-def]
    storage = InMemoryStorage() if kind == "memory" else open_storage(None if kind == "sqlite" else kind, directory)
    options = {
        "storage": storage,
        "sampler": BlockNSGAII(ENCODING, VariationSettings(population=6), 1, INITIAL),
        "objectives": ("fid", "gflops"),
        "constraints": (),
        "limits": Limits(trials=30),
        "spec": {"supernet": "abc"},
        "full_costs": {"gflops": 30.0, "latency_ms": 1.0},
    }
    return Ledger(**(options | changes))  # type: ignore[arg-type]


def score(asked: Asked, error: str = "") -> Evaluation:
    """Quality by the levels, with late ones worth more; cost by their sum."""
    levels = ENCODING.unpack(asked.genome)
    fid = float(((3 - levels) * np.linspace(0.5, 2, 10)).sum())
    return Evaluation(fid, float(levels.sum()), 1.0, "made", 100, 0, error=error)


def run(ledger: Ledger, most: int = 10_000, scored: Callable[[Asked], Evaluation] = score) -> Ledger:
    for _ in range(most):
        asked = ledger.ask()
        if asked is None:
            break
        ledger.tell(asked.number, scored(asked), "w")
    return ledger


def outcomes(ledger: Ledger) -> list[tuple[int, str, str, list[float]]]:
    return [(t.number, t.user_attrs[GENOME], t.user_attrs["origin"], t.values) for t in ledger.trials]


@pytest.mark.parametrize("kind", STORAGES)
def test_a_search_asks_its_budget_and_never_twice(kind: str, tmp_path: Path) -> None:
    ledger = run(make_ledger(kind, tmp_path))
    genomes = [t.user_attrs[GENOME] for t in ledger.trials]
    assert len(genomes) == len(set(genomes)) == 30
    assert genomes[:4] == [s.genome for s in INITIAL]
    assert ledger.budget_exhausted
    assert {t.user_attrs["origin"] for t in ledger.trials[4:]} <= {"crossover", "mutation"}


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
@pytest.mark.parametrize("stop", [0, 1, 5, 17, 29])
def test_an_interrupted_search_ends_with_the_same_trials(kind: str, stop: int, tmp_path: Path) -> None:
    whole = run(make_ledger(kind, tmp_path / "whole"))
    first = run(make_ledger(kind, tmp_path / "cut"), most=stop)
    first.ask()  # in flight when the driver died
    again = make_ledger(kind, tmp_path / "cut")
    assert again.interrupted == 1
    assert outcomes(run(again)) == outcomes(whole)


@pytest.mark.parametrize("stop", [12, 21, 30])  # after a trial that failed in its third attempt
def test_a_screened_search_with_failures_ends_with_the_same_trials_when_it_is_interrupted(
    stop: int, tmp_path: Path
) -> None:
    def made(directory: Path) -> Ledger:
        sampler = BlockNSGAII(
            ENCODING, VariationSettings(population=6), 1, INITIAL, offspring=4, screen=dearest, neighbours=25
        )
        return make_ledger("sqlite", directory, sampler=sampler)

    def dearest(plans: np.ndarray) -> int:
        return int(np.argmax(np.sum(plans, axis=1)))

    def failing(asked: Asked) -> Evaluation:
        return score(asked) if asked.number % 7 else Evaluation(math.nan, 1, 1, "", 10, 0)

    whole = run(made(tmp_path / "whole"), scored=failing)
    assert whole.failed
    assert run(made(tmp_path / "cut"), most=stop, scored=failing).trials[-1].values is None
    assert outcomes(run(made(tmp_path / "cut"), scored=failing)) == outcomes(whole)


def test_scores_that_are_not_finite_fail_with_their_reason_and_the_search_goes_on(tmp_path: Path) -> None:
    ledger = make_ledger("sqlite", tmp_path)
    asks = 0
    while (asked := ledger.ask()) is not None:
        bad = asked.number % 3 == 0
        asks += 1
        ledger.tell(asked.number, score(asked) if not bad else Evaluation(math.nan, 1, 1, "", 10, 0), "w")
    assert (ledger.failed, ledger.finished, asks) == (10, 30, 20 + 3 * 10)
    assert "not finite: fid nan" in result_of(ledger.trials[0])["error"]
    assert "(attempt 3 of 3)" in result_of(ledger.trials[0])["error"]
    assert np.isfinite(ledger.progress.scores()).all()


def test_a_worker_that_dies_is_tried_again_and_then_fails(tmp_path: Path) -> None:
    ledger = make_ledger("sqlite", tmp_path, attempts=3)
    asked = ledger.ask()
    assert asked is not None
    for attempt in (1, 2, 3):
        assert result_of(ledger.trials[0]) == {}
        ledger.fail(asked.number, "its worker died")
        if attempt < 3:
            again = ledger.ask()
            assert again == Asked(asked.number, asked.genome, attempt + 1)
    assert ledger.trials[0].state == TrialState.FAIL
    assert result_of(ledger.trials[0])["error"] == "its worker died (attempt 3 of 3)"
    assert ledger.ask() is not None  # the search continues


def test_a_search_of_which_nothing_works_ends_early(tmp_path: Path) -> None:
    ledger = make_ledger("sqlite", tmp_path, attempts=1)
    while (asked := ledger.ask()) is not None:
        ledger.fail(asked.number, "no device")
    assert (ledger.failed, ledger.hopeless) == (8, True)
    one = make_ledger("memory", tmp_path, attempts=1)
    while (asked := one.ask()) is not None:
        one.tell(asked.number, score(asked), "w") if asked.number == 2 else one.fail(asked.number, "no device")
    assert (one.failed, one.hopeless) == (29, False)


def test_a_late_second_result_changes_nothing(tmp_path: Path) -> None:
    ledger = make_ledger("sqlite", tmp_path)
    asked = ledger.ask()
    assert asked is not None
    ledger.tell(asked.number, score(asked), "w")
    ledger.tell(asked.number, Evaluation(0, 0, 0, "", 1, 0), "w")
    ledger.fail(asked.number, "late")
    assert make_ledger("sqlite", tmp_path).trials[0].values == [score(asked).fid, score(asked).gflops]


def test_a_space_that_is_used_up_ends_the_search() -> None:
    encoding = Stages(4, (0.5, 1.0), False, 3)
    sampler = BlockNSGAII(encoding, VariationSettings(population=4), 0, [Proposal("111", "uniform")])
    ledger = Ledger(
        InMemoryStorage(), sampler, ("fid", "gflops"), (), Limits(trials=100), {}, {"gflops": 1, "latency_ms": 1}
    )
    while (asked := ledger.ask()) is not None:
        levels = encoding.unpack(asked.genome)
        ledger.tell(asked.number, Evaluation(float(3 - levels.sum()), float(levels.sum()), 1, "", 1, 0), "w")
    assert sorted(t.user_attrs[GENOME] for t in ledger.trials) == sorted(
        f"{a}{b}{c}" for a in "01" for b in "01" for c in "01"
    )


def test_plans_without_a_result_are_under_way(tmp_path: Path) -> None:
    ledger = make_ledger("sqlite", tmp_path, attempts=2)

    def under_way() -> list[int]:
        return list(ledger.progress.under_way)

    asked = [ledger.ask() for _ in range(4)]
    assert under_way() == [0, 1, 2, 3]
    assert asked[1] is not None
    ledger.tell(1, score(asked[1]), "w")
    ledger.fail(2, "its worker died")  # it waits for another attempt
    assert under_way() == [0, 2, 3]
    ledger.add_fit(Proposal("3" * 10, "fit", (1,), "abc"), score(asked[1]))
    assert under_way() == [0, 2, 3]
    ledger = make_ledger("sqlite", tmp_path, attempts=2)
    assert under_way() == [0, 2, 3]
    assert [again.number for again in (ledger.ask(), ledger.ask(), ledger.ask()) if again is not None] == [0, 2, 3]
    ledger.fail(2, "again")
    assert under_way() == [0, 3]
