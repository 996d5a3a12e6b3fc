"""Check the elite, constraints and affordable plans of NSGA-II against Optuna's own choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from optuna.samplers import BaseSampler
from threadpoolctl import threadpool_info, threadpool_limits

from stepfront.search.algorithm.nsga2 import BlockNSGAII
from stepfront.search.algorithm.trials import Proposal
from stepfront.search.config import VariationSettings
from stepfront.search.optuna_internals import NSGAIIElitePopulationSelectionStrategy
from stepfront.search.study.budget import Limits
from tests.search.study.test_ledger import ENCODING, INITIAL, make_ledger, run, score


@pytest.mark.parametrize("constraints", [(), ("gflops <= 12",)])
def test_the_elite_is_what_optuna_chooses_among_all_trials(constraints: tuple[str, ...]) -> None:
    ledger = make_ledger("memory", Path(), constraints=constraints, limits=Limits(trials=80))
    for count in (4, 20, 80):
        run(ledger, most=count - ledger.finished)
        chosen = NSGAIIElitePopulationSelectionStrategy(population_size=6)(ledger.study, list(ledger.trials))
        elite = ledger.sampler.elite(ledger.study, ledger.archive)
        assert [trial.number for trial in elite] == [trial.number for trial in chosen]
        assert len(elite) == min(count, 6)


def test_constraints_dominate(tmp_path: Path) -> None:
    ledger = run(make_ledger("sqlite", tmp_path, constraints=("gflops <= 12",), limits=Limits(trials=60)))
    free = run(make_ledger("memory", tmp_path, limits=Limits(trials=60)))
    assert all(t.values[1] <= 12 for t in ledger.sampler.elite(ledger.study, ledger.archive))
    assert any(t.values[1] > 12 for t in free.sampler.elite(free.study, free.archive))
    over = [t for t in ledger.trials if t.values[1] > 12]
    assert all(t.constraints["gflops <= 12"] == t.values[1] - 12 for t in over)
    stored = make_ledger("sqlite", tmp_path, constraints=("gflops <= 12",))
    assert [t.constraints for t in stored.trials] == [t.constraints for t in ledger.trials]


def test_plans_that_are_known_to_be_too_dear_are_not_proposed() -> None:
    def affordable(levels: np.ndarray) -> bool:
        return bool(levels.sum() <= 12)

    sampler = BlockNSGAII(ENCODING, VariationSettings(population=6), 1, INITIAL[:1], affordable=affordable)
    ledger = run(make_ledger("memory", Path(), sampler=sampler, limits=Limits(trials=60)))
    assert len(ledger.trials) == 60
    assert all(t.values[1] <= 12 for t in ledger.trials[1:])


def test_a_screen_chooses_among_neighbours_of_the_front_too() -> None:
    offered: list[int] = []

    def last(children: Sequence[np.ndarray]) -> int:
        offered.append(len(children))
        return len(children) - 1

    settings = VariationSettings(population=6)
    sampler = BlockNSGAII(ENCODING, settings, 1, INITIAL, offspring=4, screen=last, neighbours=25)
    ledger = run(make_ledger("memory", Path(), sampler=sampler, limits=Limits(trials=30)))
    assert max(offered) > 4
    assert max(offered) <= 4 + 25
    by_number = {trial.number: trial for trial in ledger.trials}
    children = [trial for trial in ledger.trials if trial.user_attrs["origin"] == "neighbour"]
    assert children
    for child in children:
        (parent,) = (by_number[number] for number in child.user_attrs["parents"])
        both = (ENCODING.unpack(trial.user_attrs["genome"]) for trial in (child, parent))
        assert (next(both) != next(both)).sum() == 1


def test_the_plans_of_a_packet_are_chosen_among_the_same_candidates() -> None:
    offered: list[set[bytes]] = []

    def first(children: Sequence[np.ndarray]) -> int:
        offered.append({levels.tobytes() for levels in children})
        return 0

    sampler = BlockNSGAII(
        ENCODING, VariationSettings(population=6), 1, INITIAL, offspring=4, screen=first, neighbours=25
    )
    ledger = run(make_ledger("memory", Path(), sampler=sampler, limits=Limits(trials=40)), most=20)
    offered.clear()
    packet = [asked for _ in range(4) if (asked := ledger.ask()) is not None]
    for before, after in pairwise(offered):
        assert len(after) == len(before)
        assert len(after - before) == 1  # the plan that was chosen is gone, and one new child is there
    ledger.tell(packet[0].number, score(packet[0]), "w")
    ledger.ask()
    assert not offered[-1] <= offered[0]


def test_the_chosen_plan_climbs_to_one_that_no_single_change_improves() -> None:
    target = np.arange(10) % (ENCODING.highest + 1)

    def nearest(children: Sequence[np.ndarray]) -> int:
        return int(np.argmin([(levels != target).sum() for levels in children]))

    def distances(climb: int) -> list[int]:
        sampler = BlockNSGAII(
            ENCODING,
            VariationSettings(population=6),
            1,
            INITIAL,
            offspring=4,
            screen=nearest,
            neighbours=40,
            climb=climb,
        )
        ledger = run(make_ledger("memory", Path(), sampler=sampler, limits=Limits(trials=len(INITIAL) + 1)))
        assert (ledger.trials[-1].user_attrs["origin"] == "climb") == (climb > 0)
        return [int((ENCODING.unpack(t.user_attrs["genome"]) != target).sum()) for t in ledger.trials]

    start, far = distances(0)[-1], distances(20)
    assert start > 3
    assert far[-1] == 0
    # Each step of a climb is one change.
    assert [distances(climb)[-1] for climb in (1, 2, 3)] == [start - 1, start - 2, start - 3]
    assert far[:-1] == distances(0)[:-1]


def test_what_a_climb_compared_is_offered_to_the_next_plans_of_the_packet() -> None:
    offered: list[set[bytes]] = []

    def last(children: Sequence[np.ndarray]) -> int:
        offered.append({levels.tobytes() for levels in children})
        return len(children) - 1

    sampler = BlockNSGAII(
        ENCODING, VariationSettings(population=6), 1, INITIAL, offspring=4, screen=last, neighbours=25, climb=2
    )
    ledger = run(make_ledger("memory", Path(), sampler=sampler, limits=Limits(trials=40)), most=20)
    offered.clear()
    first = ledger.ask()
    assert first is not None
    # The candidates, then two steps of a climb, the second from the last plan of the first.
    assert len(offered) == 3
    compared = set.union(*offered) - {ENCODING.unpack(first.genome).tobytes()}
    ledger.ask()
    assert len(offered[3] - compared) == 1  # one new child
    assert compared <= offered[3]


def led(choose: Callable[[Sequence[np.ndarray]], int | None], trials: int) -> list[str]:
    """Return the origins of a search whose initial plans come partly from an earlier front, and are led by `choose`."""
    own = [Proposal(genome, "uniform") for genome in ("0" * 10, "1" * 10)] + [Proposal("0000011111", "gap")]
    front = [Proposal(genome, "front:earlier") for genome in ("0000000111", "0101010101")]
    settings = VariationSettings(population=6)
    sampler = BlockNSGAII(ENCODING, settings, 1, [*own[:2], *front, own[2]], neighbours=5, lead=choose)
    ledger = run(make_ledger("memory", Path(), sampler=sampler, limits=Limits(trials=trials)))
    return [trial.user_attrs["origin"] for trial in ledger.trials]


def test_earlier_searches_lead_the_first_generation_and_make_it_no_longer() -> None:
    offered: list[int] = []

    def first(plans: Sequence[np.ndarray]) -> int:
        offered.append(len(plans))
        return 0

    origins = led(first, 5)
    # As long as without them: three plans.  The third is theirs to choose: of three initial plans and five neighbours.
    assert origins[:3] == ["uniform", "uniform", "front:earlier"]
    assert offered == [3 + 5]
    assert "front:earlier" not in origins[3:]


def test_without_trust_the_initial_plans_come_in_their_order_and_earlier_fronts_last() -> None:
    assert led(lambda plans: None, 3) == ["uniform", "uniform", "gap"]


def test_parents_are_the_elite_of_all_trials_initial_plans_included() -> None:
    ledger = run(make_ledger("memory", Path()), most=12)
    elite = ledger.sampler.elite(ledger.study, ledger.archive)
    assert len(elite) == 6
    children = [t for t in ledger.trials if t.user_attrs["parents"]]
    assert children
    assert any(parent < 4 for t in children for parent in t.user_attrs["parents"])


def test_the_study_is_optunas_with_our_sampler_which_has_no_parameters() -> None:
    ledger = run(make_ledger("memory", Path()), most=1)
    assert isinstance(ledger.study.sampler, BaseSampler)
    assert ledger.study.sampler is ledger.sampler
    with pytest.raises(ValueError, match="no parameter 'width'"):
        ledger.study.ask().suggest_float("width", 0, 1)


def test_before_the_first_result_plans_under_way_are_the_parents() -> None:
    ledger = make_ledger("memory", Path())
    for _ in range(12):
        ledger.ask()
    children = ledger.trials[len(INITIAL) :]
    assert {trial.user_attrs["origin"] for trial in children} <= {"crossover", "mutation"}
    assert all(trial.user_attrs["parents"] for trial in children)


def test_proposals_use_one_thread_of_blas_and_leave_the_others_as_they_were() -> None:
    within: list[set[int]] = []

    def threads() -> set[int]:
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    def screen(children: Sequence[np.ndarray]) -> int:
        within.append(threads())
        return 0

    sampler = BlockNSGAII(ENCODING, VariationSettings(population=6), 1, INITIAL, offspring=4, screen=screen)
    with threadpool_limits(2, user_api="blas"):
        run(make_ledger("memory", Path(), sampler=sampler, limits=Limits(trials=30)))
        assert threads() == {2}
    assert within
    assert all(each == {1} for each in within)
