"""Check the initial plans of each kind, and the gap optimum against brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stepfront.search.genomes.encodings import SKIP_LEVEL, Cuts, Encoding, EvenStages, Stages, Steps
from stepfront.search.genomes.sampler_genes import SamplerGenes
from stepfront.search.initial_plans.plan_kinds import (
    INITIAL_PLANS,
    PlanSource,
    cut_levels,
    fewer_steps_levels,
    least_gap_plans,
    make_initial_plans,
    monotone_levels,
    random_levels,
    snr_levels,
    spread_by_cost,
)

WIDTHS = (0.25, 0.5, 0.75, 1.0)
MACS = np.array([1.0, 4.0, 9.0, 16.0])


def source(encoding: Encoding) -> PlanSource:
    rng = np.random.default_rng(0)
    gap = np.sort(rng.random((encoding.steps, len(WIDTHS))), axis=1)[:, ::-1]
    gap = gap - gap[:, -1:]

    def errors_of(steps: int) -> tuple[np.ndarray, np.ndarray]:
        errors = np.random.default_rng(steps).random((steps, steps + 1, len(WIDTHS))) / MACS
        return np.zeros(steps), errors

    log_snr = np.linspace(-5, 5, encoding.steps)
    return PlanSource(encoding, MACS, log_snr, lambda: gap, seed=3, errors_of=errors_of)


def test_uniform_plans_come_first_widest_then_narrowest() -> None:
    plans = make_initial_plans({"random": 5, "uniform": 4}, source(Stages(20, WIDTHS, False, 10)))
    assert [p.genome for p in plans[:4]] == ["3" * 10, "0" * 10, "1" * 10, "2" * 10]
    assert [p.origin for p in plans] == ["uniform"] * 4 + ["random"] * 5


def test_no_plan_is_repeated_and_none_shared_between_kinds() -> None:
    plans = make_initial_plans(dict.fromkeys(INITIAL_PLANS, 10), source(Stages(20, WIDTHS, False, 10)))
    genomes = [plan.genome for plan in plans]
    assert len(genomes) == len(set(genomes)) >= 40


def test_plans_keep_to_what_is_affordable_the_full_width_excepted() -> None:
    costs_of = np.array([*MACS, 0.0])  # the last is level -1, a step that is left out
    for kind in INITIAL_PLANS:
        free = source(Stages(20, WIDTHS, kind == "fewer_steps", 10))
        bound = replace(free, affordable=lambda levels: bool(2 * costs_of[levels].sum() <= 120))
        wanted = {"uniform": 4} if kind == "uniform" else {"uniform": 1, kind: 6}
        plans = make_initial_plans(wanted, bound)
        assert plans[0].genome == "3" * 10
        costs = [2 * costs_of[free.encoding.unpack(plan.genome)].sum() for plan in plans[1:]]
        assert max(costs) <= 120
        # The range is used up to the bound, not thinned out from plans beyond it.
        assert len(costs) >= {"uniform": 2, "fewer_steps": 3}.get(kind, 5)  # of these two there are no more
        assert kind in ("uniform", "random") or max(costs) > 80


def test_gap_plans_have_no_marks() -> None:
    plain = source(Stages(20, WIDTHS, False, 10))
    table, costs = plain.gap(), np.array([1.0, 4.0, 8.0, 9.0, 16.0])  # 1.00u: the gap of 1.00 at half of its cost
    space = Stages(20, (0.25, 0.5, 1.0, 0.75, 1.0), False, 10, ("", "", "u", "", ""))
    marked = replace(plain, encoding=space, width_costs=costs, gap=lambda: table[:, [0, 1, 3, 2, 3]])
    found = [space.step_variants(space.unpack(plan.genome)) for plan in make_initial_plans({"gap": 8}, marked)]
    expected = make_initial_plans({"gap": 8}, plain)
    assert found == [plain.encoding.step_variants(plain.encoding.unpack(plan.genome)) for plan in expected]


def test_plans_are_the_same_each_time_and_others_for_another_seed() -> None:
    wanted = {"random": 8, "monotone": 8}
    first = source(Stages(20, WIDTHS, False, 10))
    other = PlanSource(first.encoding, MACS, first.half_log_snr, first.gap, seed=4)
    assert make_initial_plans(wanted, first) == make_initial_plans(wanted, first)
    assert make_initial_plans(wanted, first) != make_initial_plans(wanted, other)


def test_monotone_plans_never_narrow_toward_the_clean_end_and_spread_over_cost() -> None:
    plans = monotone_levels(12, source(Stages(20, WIDTHS, False, 10)))
    assert all((np.diff(plan) >= 0).all() for plan in plans)
    costs = sorted(MACS[plan].sum() for plan in plans)
    assert costs[0] < 40 < 120 < costs[-1]


def test_fewer_steps_are_the_full_width_at_evenly_spread_steps() -> None:
    for encoding in (Steps(20, WIDTHS, True), EvenStages(20, WIDTHS, 20)):
        plans = fewer_steps_levels(50, source(encoding))
        taken = [np.flatnonzero(plan != SKIP_LEVEL) for plan in plans]
        assert [len(steps) for steps in taken] == list(range(1, 20))
        for plan, steps in zip(plans, taken, strict=True):
            assert set(plan[steps]) == {3}
            assert steps[0] == 0
            assert np.ptp(np.diff([*steps, 20])) <= 1
    few = [int((plan != SKIP_LEVEL).sum()) for plan in fewer_steps_levels(3, source(Steps(20, WIDTHS, True)))]
    assert sorted(few) == [5, 10, 14]  # a quarter, a half and three quarters between 1 and 19 steps


def test_there_are_no_plans_of_fewer_steps_where_none_may_be_skipped() -> None:
    assert not fewer_steps_levels(8, source(Steps(20, WIDTHS, False)))
    assert all(
        np.array_equal(plan, Cuts(20, WIDTHS, True, 2).project(plan))
        for plan in fewer_steps_levels(8, source(Cuts(20, WIDTHS, True, 2)))
    )


def test_a_step_that_is_left_out_costs_nothing() -> None:
    given = source(Stages(4, WIDTHS, True, 4))
    cheap, dear, between = np.array([-1, -1, -1, 0]), np.array([3, 3, 3, 3]), np.array([3, -1, 3, -1])
    assert [list(p) for p in spread_by_cost([cheap, dear, between], 1, given)] == [list(between)]


def test_cut_plans_have_one_or_two_rising_cuts() -> None:
    for plan in cut_levels(20, source(Stages(20, WIDTHS, False, 10))):
        assert (np.diff(plan) >= 0).all()
        assert 2 <= len(set(plan)) <= 3


def test_snr_plans_rise_with_the_log_snr() -> None:
    plans = snr_levels(15, source(Steps(20, WIDTHS, False)))
    assert all((np.diff(plan) >= 0).all() for plan in plans)
    assert len({tuple(plan) for plan in plans}) == 15


@pytest.mark.parametrize(("steps", "units"), [(5, 5), (11, 5), (12, 4)])
def test_gap_plans_are_the_whole_front_of_gap_and_cost_by_brute_force(steps: int, units: int) -> None:
    encoding = Stages(steps, WIDTHS, False, units)
    given = source(encoding)
    unit_gap = np.add.reduceat(given.gap(), np.cumsum(encoding.lengths) - encoding.lengths, axis=0)

    def scores(levels: np.ndarray) -> tuple[float, float]:
        return (
            float((encoding.lengths * MACS[levels]).sum()),
            float(unit_gap[np.arange(units), levels].sum()),
        )

    every = sorted({scores(np.array(i)) for i in np.ndindex(*(4,) * units)})
    best, expected = np.inf, []
    for cost, gap in every:
        if gap < best - 1e-12:
            best = gap
            expected.append((cost, gap))
    found = sorted(scores(plan) for plan in least_gap_plans(encoding, MACS, given.gap()))
    assert np.allclose(found, expected, atol=1e-9)


def test_gap_plans_of_a_thousand_steps_are_optimal_at_their_own_cost() -> None:
    encoding = Steps(1000, WIDTHS, False)
    given = source(encoding)
    plans = least_gap_plans(encoding, MACS, given.gap(), most_states=2000)
    gaps = np.array([given.gap()[np.arange(1000), plan].sum() for plan in plans])
    costs = np.array([MACS[plan].sum() for plan in plans])
    order = np.argsort(costs)
    assert (np.diff(gaps[order]) <= 1e-9).all()
    # On the lower hull no plan lies above the line between its neighbours.
    c, g = costs[order], gaps[order]
    slopes = np.diff(g) / np.maximum(np.diff(c), 1e-12)
    assert (np.diff(slopes[np.diff(c) > 0]) >= -1e-6).all()
    assert costs.min() == 1000
    assert costs.max() == 16000


def test_random_plans_with_genes_of_the_sampler_are_spread_by_the_cost_of_their_widths() -> None:
    """As `stepfront baselines --methods random` does where plans choose solver and grid."""
    genes = SamplerGenes(Stages(20, WIDTHS, False, 10), ("unipc_2", "dpmpp_2m"), ("quadratic", "leading"))
    random = source(genes)
    costs = [MACS[plan[:10]].sum() for plan in spread_by_cost(random_levels(5, random), 5, random)]
    assert len(costs) == 5
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]
