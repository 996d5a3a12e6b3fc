"""Check what a ledger asks, records, and continues after an interruption, in every storage that needs no server."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from stepfront.errors import InputError
from stepfront.search.algorithm.encodings import Stages
from stepfront.search.algorithm.nsga2 import BlockNSGAII
from stepfront.search.algorithm.trials import GENOME, Proposal, result_of
from stepfront.search.config import VariationSettings
from stepfront.search.optuna_internals import NSGAIIElitePopulationSelectionStrategy
from stepfront.search.pareto import front_indices, hypervolume
from stepfront.search.study.budget import Limits
from stepfront.search.study.ledger import Asked, Ledger
from stepfront.search.study.optuna_storage import cut_torn_line, finished_numbers, open_storage
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


def run(ledger: Ledger, most: int = 10_000) -> Ledger:
    for _ in range(most):
        asked = ledger.ask()
        if asked is None:
            break
        ledger.tell(asked.number, score(asked), "w")
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
def test_a_search_that_was_cut_off_ends_with_the_same_trials(kind: str, stop: int, tmp_path: Path) -> None:
    whole = run(make_ledger(kind, tmp_path / "whole"))
    first = run(make_ledger(kind, tmp_path / "cut"), most=stop)
    first.ask()  # in flight when the driver died
    again = make_ledger(kind, tmp_path / "cut")
    assert again.interrupted == 1
    assert outcomes(run(again)) == outcomes(whole)


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_driver_that_died_between_the_two_writes_of_a_result_loses_nothing(kind: str, tmp_path: Path) -> None:
    ledger = run(make_ledger(kind, tmp_path), most=3)
    asked = ledger.ask()
    assert asked is not None
    ledger.storage.set_trial_state_values = _die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        ledger.tell(asked.number, score(asked), "w")
    again = make_ledger(kind, tmp_path)
    assert again.interrupted == 0
    assert again.trials[3].state == TrialState.COMPLETE
    assert again.trials[3].values == [score(asked).fid, score(asked).gflops]


def _die(*args: object, **kwargs: object) -> None:
    raise KeyboardInterrupt


def test_a_torn_last_line_of_a_journal_is_cut_off(tmp_path: Path) -> None:
    run(make_ledger("journal", tmp_path), most=5)
    path = tmp_path / "study.journal"
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    ledger = run(make_ledger("journal", tmp_path))
    assert ledger.finished == 30
    assert outcomes(make_ledger("journal", tmp_path)) == outcomes(ledger)
    cut_torn_line(tmp_path / "none")  # nothing to cut is no error


def test_a_result_whose_state_was_lost_counts_as_recorded(tmp_path: Path) -> None:
    run(make_ledger("journal", tmp_path), most=5)
    path = tmp_path / "study.journal"
    path.write_bytes(path.read_bytes()[:-20])  # of the last trial's state
    assert finished_numbers("journal", tmp_path) == {0, 1, 2, 3, 4}
    path.write_bytes(b"no journal\n" + path.read_bytes())
    assert finished_numbers("journal", tmp_path) is None
    assert finished_numbers(None, tmp_path) == set()


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
    assert ledger.ask() is not None  # the search goes on


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


def test_another_searchs_storage_is_refused(tmp_path: Path) -> None:
    run(make_ledger("sqlite", tmp_path), most=2)
    with pytest.raises(InputError, match=r"begun with supernet 'abc', not 'xyz'"):
        make_ledger("sqlite", tmp_path, spec={"supernet": "xyz"})


def test_a_storage_that_can_not_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"this is no database, and long enough to be seen as none" * 40)
    with pytest.raises(InputError, match="can't be opened"):
        open_storage(None, tmp_path)
    with pytest.raises(InputError, match="can't be opened"):
        open_storage("nonsense://x", tmp_path)


def test_limits_by_flops_time_and_stall(tmp_path: Path) -> None:
    by_flops = run(make_ledger("memory", tmp_path, limits=Limits(tflops=6.0)))
    spent = [result_of(t)["gflops"] * 100 / 1000 for t in by_flops.trials]
    assert sum(spent) >= 6.0 > sum(spent[:-1])
    assert make_ledger("memory", tmp_path, limits=Limits(seconds=0.0)).ask() is None
    patient = run(make_ledger("memory", tmp_path, limits=Limits(patience=2, trials=500)))
    history = patient.progress.hypervolumes()
    assert history[-1] == history[-13]
    assert len(history) < 500


@pytest.mark.parametrize("constraints", [(), ("gflops <= 12",)])
def test_the_elite_is_what_optuna_chooses_among_all_trials(constraints: tuple[str, ...]) -> None:
    ledger = make_ledger("memory", Path(), constraints=constraints, limits=Limits(trials=80))
    for count in (4, 20, 80):
        run(ledger, most=count - ledger.finished)
        chosen = NSGAIIElitePopulationSelectionStrategy(population_size=6)(ledger.study, list(ledger.trials))
        elite = ledger.sampler.elite(ledger.study, ledger.archive)
        assert [trial.number for trial in elite] == [trial.number for trial in chosen]
        assert len(elite) == min(count, 6)


def test_results_of_one_moment_keep_their_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ledger = make_ledger("sqlite", tmp_path)
    monkeypatch.setattr("stepfront.search.study.clock.time.monotonic", lambda: 0.0)
    asked = [ledger.ask() for _ in range(4)]
    for one in reversed(asked):
        assert one is not None
        ledger.tell(one.number, score(one), "w")
    order = [trial.number for trial in ledger.complete]
    assert order == [3, 2, 1, 0]
    assert [trial.number for trial in make_ledger("sqlite", tmp_path).complete] == order


def test_constraints_dominate(tmp_path: Path) -> None:
    ledger = run(make_ledger("sqlite", tmp_path, constraints=("gflops <= 12",), limits=Limits(trials=60)))
    free = run(make_ledger("memory", tmp_path, limits=Limits(trials=60)))
    assert all(t.values[1] <= 12 for t in ledger.sampler.elite(ledger.study, ledger.archive))
    assert any(t.values[1] > 12 for t in free.sampler.elite(free.study, free.archive))
    over = [t for t in ledger.trials if t.values[1] > 12]
    assert all(t.constraints["gflops <= 12"] == t.values[1] - 12 for t in over)
    stored = make_ledger("sqlite", tmp_path, constraints=("gflops <= 12",))
    assert [t.constraints for t in stored.trials] == [t.constraints for t in ledger.trials]


def test_the_reference_point_is_fixed_once(tmp_path: Path) -> None:
    ledger = run(make_ledger("sqlite", tmp_path), most=4)
    point = ledger.progress.reference_point()
    assert point == pytest.approx([1.1 * max(t.values[0] for t in ledger.trials), 1.05 * 30.0])
    assert run(ledger).progress.reference_point() == point
    assert (np.diff(ledger.progress.hypervolumes()) >= 0).all()


def test_the_reference_point_does_not_depend_on_which_initial_plan_comes_back_first() -> None:
    points = []
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 4, 0, 3, 1]):
        ledger = make_ledger("memory", Path())
        asked = [ledger.ask() for _ in range(5)]
        for i in order:
            one = asked[i]
            assert one is not None
            missing = [number for number in range(4) if not ledger.trials[number].state.is_finished()]
            assert (ledger.progress.reference_point() is None) == bool(missing)
            ledger.tell(one.number, score(one), "w")
        points.append(ledger.progress.reference_point())
    assert points[0] == points[1] == points[2] is not None


def test_trials_that_break_a_constraint_add_no_hypervolume() -> None:
    ledger = run(make_ledger("memory", Path(), constraints=("gflops <= 12",), limits=Limits(trials=40)))
    reference = ledger.progress.reference_point()
    assert reference is not None
    kept = np.array([t.values for t in ledger.complete if t.values[1] <= 12])
    assert ledger.progress.hypervolumes()[-1] == pytest.approx(hypervolume(kept[front_indices(kept)], reference))
    assert (ledger.progress.front_scores()[:, 1] <= 12).all()
    assert any(t.values[1] > 12 for t in ledger.complete)


def test_plans_that_are_known_to_be_too_dear_are_not_proposed() -> None:
    def affordable(levels: np.ndarray) -> bool:
        return bool(levels.sum() <= 12)

    sampler = BlockNSGAII(ENCODING, VariationSettings(population=6), 1, INITIAL[:1], affordable=affordable)
    ledger = run(make_ledger("memory", Path(), sampler=sampler, limits=Limits(trials=60)))
    assert len(ledger.trials) == 60
    assert all(t.values[1] <= 12 for t in ledger.trials[1:])


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


def test_parents_are_the_elite_of_all_trials_initial_plans_included() -> None:
    ledger = run(make_ledger("memory", Path()), most=12)
    elite = ledger.sampler.elite(ledger.study, ledger.archive)
    assert len(elite) == 6
    children = [t for t in ledger.trials if t.user_attrs["parents"]]
    assert children
    assert any(parent < 4 for t in children for parent in t.user_attrs["parents"])
