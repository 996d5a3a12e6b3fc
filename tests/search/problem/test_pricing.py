"""Prices of levels: the sums of a plan's own cost, and constraints that some plan must keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stepfront.errors import InputError
from stepfront.search.problem.costs import read_costs
from stepfront.search.problem.load import load_problem
from stepfront.search.problem.pricing import affordability, level_prices
from stepfront.search.problem.problem import SearchProblem
from stepfront.trainers.inference.cost import WidthCost, count_width, plan_gflops
from tests.search.conftest import tiny_settings


def problem_with_costs(directory: Path, *overrides: str) -> tuple[SearchProblem, dict[float, WidthCost]]:
    """Return the tiny problem, with counted costs and a latency of 1 ms per width and call."""
    problem = load_problem(tiny_settings(directory, *overrides))
    widths = problem.card.network.widths
    counted = {width: count_width(problem.card.network, 1, 8, width) for width in widths}
    return problem, {width: cost.model_copy(update={"latency_ms": 1.0}) for width, cost in counted.items()}


def test_a_price_is_the_cost_of_the_plan(trained: Path) -> None:
    problem, costs = problem_with_costs(trained)
    prices = level_prices(problem, costs)
    for levels in np.ndindex(3, 3, 3):
        plan = problem.plan_at(np.array(levels))
        assert prices["gflops"](np.array(levels)) == pytest.approx(plan_gflops(plan, costs), rel=1e-12)
        assert prices["latency_ms"](np.array(levels)) == len(plan.times)


def test_a_constraint_on_cost_decides_before_any_evaluation(trained: Path) -> None:
    problem, costs = problem_with_costs(trained)
    limit = plan_gflops(problem.uniform_plan(0.5), costs)
    problem, costs = problem_with_costs(trained, f"evaluation.constraints=['gflops <= {limit}', 'fid <= 3']")
    keeps = affordability(problem, costs)
    prices = level_prices(problem, costs)
    for levels in map(np.array, np.ndindex(3, 3, 3)):
        assert keeps(levels) == (prices["gflops"](levels) <= limit * (1 + 1e-9))
    assert keeps(np.array([1, 1, 1]))  # the plan whose cost is the limit, summed in another order
    problem, costs = problem_with_costs(trained, "evaluation.constraints=['latency_ms >= 7']")
    with pytest.raises(InputError, match=r"the widest uniform plan has 6; change evaluation\.constraints"):
        affordability(problem, costs)


def test_the_key_of_a_gap_table_changes_with_what_it_is_computed_from(trained: Path) -> None:
    keys = [
        load_problem(tiny_settings(trained, *overrides)).gap_inputs.key
        for overrides in ((), ("sampler.steps=5",), ("sampler.grid=quadratic",), ("search_seed=3",))
    ]
    assert len(set(keys)) == 3
    assert keys[0] == keys[3]


def test_the_key_of_the_errors_of_steps_changes_with_what_they_are_measured_from(trained: Path) -> None:
    keys = [
        load_problem(tiny_settings(trained, *overrides)).step_error_inputs.key
        for overrides in ((), ("sampler.steps=5",), ("sampler.clip=true",), ("space.skip=true",), ("search_seed=3",))
    ]
    assert len(set(keys)) == 4
    assert keys[0] == keys[4]


def test_a_sampler_of_too_many_steps_has_no_plans_of_least_error(trained: Path) -> None:
    with pytest.raises(InputError, match=r"initial_plans\.dp measures samplers of at most 256 steps"):
        tiny_settings(trained, "sampler.steps=300", "initial_plans={uniform: 2, dp: 4}")


def test_missing_costs_are_a_line_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"costs\.json; `stepfront resume .*` measures the widths again"):
        read_costs(tmp_path / "tiny" / "search")
