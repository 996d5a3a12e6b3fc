"""What a space of variants is, what its plans cost, and its baselines; nothing is searched here."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stepfront.errors import InputError
from stepfront.search.config import RunSettings, settings_from
from stepfront.search.genomes.sampler_genes import make_plan_encoding
from stepfront.search.initial_plans.plan_kinds import INITIAL_PLANS, make_initial_plans
from stepfront.search.problem.baseline_plans import baseline_plans, interval_plans, variant_methods
from stepfront.search.problem.costs import read_costs
from stepfront.search.problem.load import load_problem
from stepfront.search.problem.plan_source import make_plan_source
from stepfront.search.problem.pricing import affordability, level_prices
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.plan_rows import plan_columns, plan_of_row
from stepfront.search.records.within_noise import differing_share
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.inference.cost import WidthCost, count_width, plan_gflops, plan_latency_ms
from stepfront.trainers.variant import Variant, parse_variants
from tests.search.conftest import TINY, tiny_settings

REUSE = "space.variants=[0.25, 1.0, 1.0r]"
STEPS = "space.encoding=steps"


def problem_with_costs(directory: Path, *overrides: str) -> tuple[SearchProblem, dict[float, WidthCost]]:
    problem = load_problem(tiny_settings(directory, *overrides))
    network, measured = problem.card.network, {"latency_ms": 1.0, "reuse_latency_ms": 0.25}
    return problem, {w: count_width(network, 1, 8, w).model_copy(update=measured) for w in network.widths}


# --- settings ---------------------------------------------------------------------------------------------------------


def settings(*overrides: str) -> RunSettings:
    return settings_from(TINY, list(overrides))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("[0.3, 1.0]", r"space\.variants has 0\.30, and network\.widths has no 0\.3; possible: 0\.25, 0\.5, 1"),
        ("[0.5]", "lacks 1.0, the full width"),
        ("[1.0, 1.0x]", r"'1\.0x' is not a variant"),
        ("[1.0, 0.5r]", r"0\.50r reuses features of 0\.50, which is not among them"),
        ("[1.0, 1.00]", r"1\.00 is given twice"),
        ("[1.0, 1.0u]", r"1\.00u, which turns guidance off \(u\), and the network has no classes"),
        ("[1.0, 1.0g3]", r"1\.00g3, which guides at a scale of its own \(g\), and the network has no classes"),
        ("[1.0, 1.0g-3]", r"'1\.0g-3' is not a variant; write a width and, after it, .* g3 \(guided at scale 3"),
        ("[1.0, 1.0g1]", r"scale 1 is the conditional prediction alone; write 1\.00u"),
        ("[1.0, 1.0g3, 1.0g3.0]", r"1\.00g3 is given twice"),
        ("[1.0, 1.0rg3]", r"1\.00rg3 reuses features of 1\.00g3, which is not among them"),
    ],
)
def test_impossible_variants_are_refused_in_one_line(given: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        settings(f"space.variants={given}")
    assert "\n" not in str(caught.value)


def test_a_step_chooses_from_as_many_as_a_genome_has_letters() -> None:
    widths = [(i + 1) / 37 for i in range(37)]
    with pytest.raises(InputError, match=r"space\.variants: it has 37 variants; give at most 36") as caught:
        settings("network.base=74", f"network.widths={widths}", f"space.variants={widths}")
    assert "\n" not in str(caught.value)
    with pytest.raises(
        InputError, match=r"network\.widths has 37 widths, and a step chooses from at most 36"
    ) as caught:
        settings("network.base=74", f"network.widths={widths}")
    assert "\n" not in str(caught.value)
    found = settings("network.base=74", f"network.widths={widths}", f"space.variants={widths[1:]}")
    encoding = make_plan_encoding(found.space, found.sampler, found.space.listed)
    assert encoding.pack(encoding.unpack("0z9")) == "0z9"


def test_guidance_off_needs_guidance() -> None:
    with pytest.raises(InputError, match=r"sampler\.guidance is 1: no step is guided"):
        settings("network.classes=10", "space.variants=[1.0, 1.0u]")
    with pytest.raises(
        InputError, match=r"guidance is 1: no step is guided; set sampler\.guidance to one of the scales"
    ):
        settings("network.classes=10", "space.variants=[1.0, 1.0g3]")
    found = settings("network.classes=10", "sampler.guidance=2.0", "space.variants=[0.5, 1, 1.0u]")
    assert found.space.listed == (Variant(0.5), Variant(1.0), Variant(1.0, guided=False))


def test_the_scale_of_the_sampler_is_not_written_at_a_step() -> None:
    guided = ("network.classes=10", "sampler.guidance=2.0")
    with pytest.raises(
        InputError, match=r"0\.50g2, and sampler\.guidance is 2: write 0\.50, which runs at that"
    ) as caught:
        settings(*guided, "space.variants=[0.5g2, 1.0]")
    assert "\n" not in str(caught.value)
    found = settings(*guided, "space.variants=[0.5, 1.0, 1.0g3, 0.5g1.5]")
    assert found.space.listed[2:] == (Variant(1.0, scale=3.0), Variant(0.5, scale=1.5))
    scales = [f"1.0g{2 + number}" for number in range(1, 36)]
    assert len(settings(*guided, f"space.variants={['1.0', *scales]}").space.listed) == 36
    with pytest.raises(InputError, match=r"space\.variants: it has 37 variants; give at most 36"):
        settings(*guided, f"space.variants={['1.0', *scales, '1.0g99']}")


def test_a_network_without_levels_is_refused_before_anything_is_written(trained: Path) -> None:
    problem = load_problem(tiny_settings(trained, REUSE))
    flat = problem.card.network.model_copy(update={"multipliers": (1,), "attention": ()})
    with pytest.raises(InputError, match=r"space\.variants has 1\.00r, and .* families unet, spectral and ode"):
        _ = replace(problem, card=problem.card.model_copy(update={"network": flat})).variants


# --- plans and their costs --------------------------------------------------------------------------------------------


def test_levels_ascend_in_counted_cost(trained: Path) -> None:
    problem, costs = problem_with_costs(trained, "space.variants=[1.0, 0.5, 1.0r, 0.25, 0.5r]")
    each = [costs[v.width].gflops_of(v) for v in problem.variants]
    assert each == sorted(each)
    assert problem.variants[-1] == Variant(1.0)
    assert load_problem(tiny_settings(trained)).variants == (Variant(0.25), Variant(0.5), Variant(1.0))


def test_scales_of_guidance_cost_two_calls_and_lie_below_the_samplers_own(trained: Path) -> None:
    guided = ("network.classes=10", "sampler.guidance=2.0")
    variants = "space.variants=[1.0, 1.0g4, 1.0g1.5, 0.5g4, 0.5, 1.0u]"
    problem = replace(load_problem(tiny_settings(trained)), settings=settings(*guided, variants))
    assert [str(v) for v in problem.variants] == ["0.50g4", "0.50", "1.00u", "1.00g1.5", "1.00g4", "1.00"]
    cost = WidthCost(width=1.0, macs=5, parameters=2, latency_ms=3.0, calls=2, reuse_macs=1, reuse_latency_ms=0.5)
    own = Variant(1.0, scale=4.0)
    for variant in (own, own._replace(reuse=True)):
        plain = variant._replace(scale=None)
        assert cost.gflops_of(variant) == cost.gflops_of(plain)
        assert cost.ms_of(variant) == cost.ms_of(plain)
        assert cost.calls_of(variant) == 2


def test_a_price_is_the_cost_of_the_plan(trained: Path) -> None:
    problem, costs = problem_with_costs(trained, REUSE)
    prices = level_prices(problem, costs)
    assert affordability(problem, costs) is None
    for index in np.ndindex(3, 3, 3):
        levels = problem.encoding.project(np.array(index))
        plan = problem.plan_at(levels)
        assert prices["gflops"](levels) == pytest.approx(plan_gflops(plan, costs), rel=1e-12)
        assert prices["latency_ms"](levels) == pytest.approx(plan_latency_ms(plan, costs), rel=1e-12)


def test_a_price_knows_which_steps_hand_out_their_features(trained: Path) -> None:
    problem, costs = problem_with_costs(trained, REUSE)
    costs = {width: cost.model_copy(update={"keep_latency_ms": 1.75}) for width, cost in costs.items()}
    prices = level_prices(problem, costs)
    for index in np.ndindex(3, 3, 3):
        levels = problem.encoding.project(np.array(index))
        plan = problem.plan_at(levels)
        assert prices["latency_ms"](levels) == pytest.approx(plan_latency_ms(plan, costs), rel=1e-12)
        before = sum(later.reuse and not one.reuse for one, later in itertools.pairwise(plan.variants))
        assert prices["latency_ms"](levels) == pytest.approx(
            0.75 * before + sum(0.25 if variant.reuse else 1.0 for variant in plan.variants)
        )


def test_a_bound_that_only_plans_with_reuse_keep_is_possible(trained: Path) -> None:
    cuts = ("space.encoding=cuts", "space.variants=[1.0, 1.0r]", "evaluation.constraints=['latency_ms <= 3']")
    problem, costs = problem_with_costs(trained, *cuts)
    keeps = affordability(problem, costs)
    cheap = problem.encoding.unpack("10@1")
    assert problem.plan_at(cheap).runs == "1x1.00 5x1.00r"
    assert keeps(cheap), "1 + 5 * 0.25 ms"
    assert not keeps(problem.encoding.unpack("1@"))
    problem, costs = problem_with_costs(trained, *cuts[:2], "evaluation.constraints=['latency_ms <= 1.4']")
    with pytest.raises(InputError, match=r"the cheapest variant at every step has 1\.5;"):
        affordability(problem, costs)


def test_every_kind_of_initial_plan_is_legal(trained: Path) -> None:
    problem, costs = problem_with_costs(trained, REUSE, STEPS, "space.skip=even")
    source = make_plan_source(problem, costs)
    assert source.gap().shape == (6, 3)
    for kind in INITIAL_PLANS:
        plans = make_initial_plans({kind: 4}, source)
        assert plans, kind
        for proposal in plans:
            assert problem.plan_of(proposal.genome).runs


def test_the_gap_of_reuse_is_what_it_adds_to_the_loss(trained: Path) -> None:
    problem = load_problem(tiny_settings(trained, REUSE))
    plain = load_problem(tiny_settings(trained))
    column = {variant: problem.gap[:, i] for i, variant in enumerate(problem.variants)}
    assert np.array_equal(column[Variant(0.25)], plain.gap[:, 0])
    assert (column[Variant(1.0)] == 0).all()
    reused = column[Variant(1.0, reuse=True)]
    assert reused[0] == 0, "the first step has nothing to reuse"
    assert (reused[1:] != 0).all()
    assert problem.gap_inputs.key != plain.gap_inputs.key


def test_a_row_of_a_table_gives_its_plan_back(trained: Path) -> None:
    problem, _ = problem_with_costs(trained, REUSE)
    import pandas as pd

    plan = problem.plan(parse_variants("2x1.00 1x1.00r 1x0.25 2x1.00"))
    other = problem.plan(plan.widths)
    assert plan_of_row(pd.Series(plan_columns(plan))) == plan
    assert plan_of_row(pd.Series(plan_columns(other))) == other
    scaled = problem.plan(parse_variants("2x1.00g3 1x1.00rg1.5 1x0.25g0.3333333333333333 2x1.00"))
    assert plan_of_row(pd.Series(plan_columns(scaled))) == scaled
    assert differing_share(pd.Series(plan_columns(plan)), pd.Series(plan_columns(other))) == pytest.approx(1 / 6)


# --- baselines --------------------------------------------------------------------------------------------------------


def runs(plans: list[Plan]) -> list[str]:
    return [plan.runs for plan in plans]


def test_deep_cache_runs_all_levels_at_every_2nd_3rd_and_5th_step(trained: Path) -> None:
    problem, costs = problem_with_costs(trained, REUSE)
    source = make_plan_source(problem, costs, problem.encoding_of_widths)
    assert variant_methods(problem) == ("deepcache",)
    assert runs(baseline_plans("deepcache", 9, problem, source)) == [
        "1x1.00 1x1.00r 1x1.00 1x1.00r 1x1.00 1x1.00r",
        "1x1.00 2x1.00r 1x1.00 2x1.00r",
        "1x1.00 4x1.00r 1x1.00",
    ]
    assert variant_methods(load_problem(tiny_settings(trained))) == ()


def test_intervals_of_guidance_begin_with_none(trained: Path) -> None:
    problem, _ = problem_with_costs(trained)
    assert runs(interval_plans(problem, 3)) == ["6x1.00u", "3x1.00u 2x1.00 1x1.00u", "1x1.00u 5x1.00"]
    every = runs(interval_plans(problem, 100))
    assert len(every) == len(set(every)) == 1 + 20
    assert "6x1.00" not in every


def test_other_baselines_are_of_widths_alone(trained: Path) -> None:
    problem, costs = problem_with_costs(trained, REUSE)
    source = make_plan_source(problem, costs, problem.encoding_of_widths)
    for method in ("uniform", "one_cut", "two_cut", "monotone", "random", "gap", "fewer_steps"):
        plans = baseline_plans(method, 4, problem, source)
        assert plans, method
        assert not any(plan.marks for plan in plans)
        assert {width for plan in plans for width in plan.widths} <= {0.25, 1.0}


def test_costs_of_searches_before_variants_are_read(trained: Path, tmp_path: Path) -> None:
    row = '{"width": 1.0, "macs": 5, "parameters": 2, "latency_ms": 1.0}'
    (tmp_path / "costs.json").write_text(f'{{"widths": [{row}], "engines": []}}')
    assert read_costs(tmp_path)[1.0].reuse_macs is None
