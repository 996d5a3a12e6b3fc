"""The claim: of the cheapest plan that is not worse than the best full-width sampler, on both judges."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from stepfront.dashboards.claim import claim_sentence
from stepfront.search.claims.claim import CLAIM_KEYS, Rules, Standing, compare_plans, make_claim
from stepfront.search.claims.confirmed_plans import ConfirmedPlan
from tests.search.claims.scores import scored

RULES = Rules(0.05, (5,))
FULL = scored("full", "full", 2.0, 3.0)


def standing(*tables: pd.DataFrame, rules: Rules = RULES) -> Standing:
    found = compare_plans(pd.concat([FULL, *tables], ignore_index=True), rules)
    assert found is not None
    return found


def test_the_claim_is_that_of_the_cheapest_point_by_the_searchs_own_cost() -> None:
    both = scored("front", "few FLOPs", 2.0, 3.0), scored("front", "quick", 1.9, 3.0)
    by_flops = make_claim(standing(*both), 64)
    by_latency = make_claim(standing(*both, rules=Rules(0.05, (5,), "latency_ms")), 64)
    assert (by_flops["plan"], by_flops["trial"], by_flops["flops_saved"]) == ("few FLOPs", 1, 0.75)
    assert (by_latency["plan"], by_latency["latency_saved"]) == ("quick", 0.625)


def test_a_claim_has_the_promised_keys_and_is_json() -> None:
    claim = make_claim(standing(scored("front", "few FLOPs", 2.0, 3.0)), 64)
    assert set(CLAIM_KEYS) <= set(claim)
    assert json.loads(json.dumps(claim, allow_nan=False)) == claim
    assert (claim["holds"], claim["margin"], claim["seeds"], claim["images"]) == (True, 0.05, 5, 64)
    first, second = claim["judges"]
    assert (first["features"], second["features"]) == ("classifier", "random")
    assert first["score"] - first["reference"] == pytest.approx(first["difference"])
    assert first["interval"][0] < first["difference"] < first["interval"][1] < 0.05 * first["reference"]


def test_a_point_that_is_as_good_on_one_judge_only_makes_no_claim() -> None:
    for scores in ((2.0, 3.3), (2.2, 3.0)):
        claim = make_claim(standing(scored("front", "few FLOPs", *scores)), 64)
        assert not claim["holds"]
        assert claim["plan"] == "few FLOPs"
        assert claim["flops_saved"] is claim["flops_saved_against_best_full_width"] is claim["latency_saved"] is None
        assert not claim["more_may_help"]


def test_a_point_not_shown_to_be_worse_makes_no_claim() -> None:
    claim = make_claim(standing(scored("front", "few FLOPs", 2.0, 3.0, noise=0.5)), 64)
    low, high = claim["judges"][0]["interval"]
    assert low < 0 < 0.1 < high  # the rule of 0.1 would have claimed it
    assert not claim["holds"]


def without_variance(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(fid=2.0, second_fid=3.0)


def test_a_search_of_full_width_alone_claims_nothing_and_says_so() -> None:
    """One trial, or a front that is full width: nothing costs less."""
    claim = make_claim(standing(), 64)
    assert (claim["holds"], claim["plan"], claim["trial"], claim["judges"]) == (False, None, None, [])
    assert claim_sentence(claim).startswith("No saving at equal quality is claimed")
    json.dumps(claim, allow_nan=False)


def test_scores_without_variance_are_equal_and_the_cheapest_plan_is_claimed() -> None:
    rows = [without_variance(scored("front", plan, 0.0, 0.0)) for plan in ("few FLOPs", "quick")]
    found = compare_plans(pd.concat([without_variance(FULL), *rows], ignore_index=True), RULES)
    assert found is not None
    claim = make_claim(found, 64)
    assert (claim["holds"], claim["plan"], claim["flops_saved"]) == (True, "few FLOPs", 0.75)
    assert [judge["interval"] for judge in claim["judges"]] == [[0.0, 0.0], [0.0, 0.0]]
    assert "75%" in claim_sentence(claim)


def test_perfect_scores_without_variance_claim_nothing() -> None:
    """A margin of a score of 0 is 0, and nothing is below it."""
    rows = [table.assign(fid=0.0, second_fid=0.0) for table in (FULL, scored("front", "few FLOPs", 0.0, 0.0))]
    found = compare_plans(pd.concat(rows, ignore_index=True), RULES)
    assert found is not None
    assert not make_claim(found, 64)["holds"]


def test_equal_plans_of_several_trials_are_compared_once() -> None:
    rows = scored("front", "few FLOPs", 2.0, 3.0)
    claim = make_claim(standing(rows, rows.assign(trial=2.0)), 64)
    assert (claim["holds"], claim["plan"], claim["seeds"]) == (True, "few FLOPs", 5)


@pytest.mark.parametrize(
    ("blur", "sees"),
    [((-0.5, -0.2), False), ((0.05, 0.1), False), ((0.5, -0.2), True), ((-0.5, 0.5), True), ((0.5, 0.5), True)],
)
def test_judges_that_let_a_blurred_reference_pass_make_no_claim(blur: tuple[float, float], sees: bool) -> None:
    point = scored("front", "few FLOPs", 2.0, 3.0)
    found = compare_plans(pd.concat([scored("full", "full", 2.0, 3.0, blur=blur), point]), RULES)
    assert found is not None
    assert found.sees_blur is sees
    claim = make_claim(found, 64)
    assert claim["holds"] is sees
    assert claim["correction"]["tested"] == int(sees)
    assert claim["blurred_reference"]["passes"] is not sees
    assert [judge["difference"] for judge in claim["blurred_reference"]["judges"]] == pytest.approx(list(blur))
    assert json.loads(json.dumps(claim, allow_nan=False)) == claim


def test_no_seeds_are_added_where_the_judges_do_not_see_a_blur() -> None:
    near = scored("front", "few FLOPs", 2.0, 3.0, noise=0.2)
    for blur, wanted in (((-0.5, -0.2), 0), ((0.5, 0.5), 2)):
        found = compare_plans(pd.concat([scored("full", "full", 2.0, 3.0, blur=blur), near]), Rules(0.05, (5, 10)))
        assert found is not None
        assert len(found.near()) == wanted


def test_where_no_blur_was_scored_none_is_judged() -> None:
    assert make_claim(standing(scored("front", "few FLOPs", 2.0, 3.0)), 64)["blurred_reference"] is None


def test_one_judge_makes_no_claim() -> None:
    table = pd.concat([FULL, scored("front", "few FLOPs", 2.0, 3.0)]).drop(columns=["second_fid", "second_features"])
    found = compare_plans(table, RULES)
    assert found is not None
    claim = make_claim(found, 64)
    assert not claim["holds"]
    assert [judge["features"] for judge in claim["judges"]] == ["classifier"]


def test_the_reference_is_the_best_full_width_sampler_whatever_it_costs() -> None:
    better = scored("sampler", "6x1.00", 1.5, 2.5, sampler="dpmpp_2m, logsnr grid")
    point = scored("front", "few FLOPs", 2.0, 3.0)  # as good as the settings' own, worse than the better sampler
    claim = make_claim(standing(point, better), 64)
    assert claim["reference"]["plan"] == "6x1.00"
    assert claim["reference"]["sampler"] == "dpmpp_2m, logsnr grid"
    assert claim["full"]["plan"] == "full"  # it stands beside
    assert not claim["holds"]
    dearer = make_claim(standing(point, better.assign(gflops=5.0)), 64)
    assert not dearer["holds"]
    assert dearer["reference"]["plan"] == "6x1.00"


FITTED_AND_CHEAPER = (
    scored("front", "4x1.00", 2.0, 3.0, sampler="fit 1a2b"),
    scored("front", "quick", 2.0, 3.0, sampler="fit 3c4d"),
)


def test_full_width_on_a_fitted_sampler_is_what_widths_are_held_against() -> None:
    """A front whose full-width point and whose narrower one both run on samplers of their own."""
    claim = make_claim(standing(*FITTED_AND_CHEAPER), 64)
    assert (claim["plan"], claim["flops_saved"]) == ("quick", 0.5)
    assert (claim["best_full_width"]["plan"], claim["best_full_width"]["sampler"]) == ("4x1.00", "fit 1a2b")
    assert claim["flops_saved_against_best_full_width"] == pytest.approx(1 - 2.0 / 2.4)


@pytest.mark.parametrize(("kind", "sampler"), [("front", "fit 1a2b"), ("front", "ddim, edm grid"), ("baseline", "")])
def test_the_best_plan_at_full_width_is_the_reference_whatever_confirmed_it(kind: str, sampler: str) -> None:
    better = scored(kind, "6x1.00", 1.5, 2.5, sampler=sampler)
    found = standing(scored("front", "few FLOPs", 2.0, 3.0), better)
    assert [plan.key for plan in found.references] == [("6x1.00", sampler)] * 2
    # As good as the settings' own is not enough; full width in fewer steps may be claimed itself.
    assert make_claim(found, 64)["plan"] == ("6x1.00" if kind == "front" else "few FLOPs")
    assert make_claim(found, 64)["holds"] is (kind == "front")


@pytest.mark.parametrize(
    ("text", "full"),
    [("20x1.00", True), ("2x1.00 1xskip 3x1.00", True), ("1xskip 3x1.00", True), ("3xskip", False)]
    + [(text, False) for text in ("20x1.00u", "4x1.00 4x1.00r", "4x1.00d2", "4x1.00 2x0.50", "4x0.50")],
)
def test_full_width_has_no_marks_and_no_other_width(text: str, full: bool) -> None:
    plan = ConfirmedPlan("front", text, "fit 1a2b", 1, 1.0, 1.0, pd.DataFrame())
    assert plan.is_full_width is full


def test_a_front_point_that_is_full_width_is_listed_once() -> None:
    twice = scored("sampler", "4x1.00", 2.0, 3.0, sampler="a"), scored("front", "4x1.00", 2.0, 3.0, sampler="a")
    assert [each.plan.key for each in standing(*twice).samplers] == [("4x1.00", "a"), ("full", "")]


def test_each_judge_has_its_own_best_full_width_sampler() -> None:
    """As on Fashion-MNIST: one judge put 10 steps before 20, the other 20 before 10, by a fifth."""
    few = scored("sampler", "4x1.00", 1.0, 3.6)
    claim = make_claim(standing(scored("front", "few FLOPs", 1.0, 3.6), few), 64)
    assert not claim["holds"]  # it is the best on the first judge, and a fifth worse than full width on the second
    first, second = claim["judges"]
    assert (first["reference_plan"], second["reference_plan"]) == ("4x1.00", "full")
    assert (first["reference"], second["reference"]) == pytest.approx((1.0, 3.0), abs=0.3)
    assert second["difference"] == pytest.approx(0.6)
    assert claim["reference"]["plan"] == "4x1.00"
    assert "4x1.00 on classifier and full on random" in claim_sentence(claim)
    both = make_claim(standing(scored("front", "few FLOPs", 1.0, 3.0), few), 64)
    assert (both["holds"], both["flops_saved"]) == (True, 0.75)
    # No full-width sampler is as good on both judges, so there is none that the saving could be held against.
    assert both["best_full_width"] is both["flops_saved_against_best_full_width"] is None
    assert "No full-width sampler is shown to be as good on all judges" in claim_sentence(both)


def test_a_full_width_point_is_held_against_the_best_of_the_others() -> None:
    itself = scored("sampler", "4x1.00", 2.05, 3.05, sampler="a"), scored("front", "4x1.00", 2.05, 3.05, sampler="a")
    claim = make_claim(standing(*itself), 64)
    assert claim["holds"]  # a little worse than all steps on both judges, and within the margin
    assert [judge["reference_plan"] for judge in claim["judges"]] == ["full", "full"]
    best = scored("sampler", "4x1.00", 1.5, 3.0, sampler="a"), scored("front", "4x1.00", 1.5, 3.0, sampler="a")
    claim = make_claim(standing(*best), 64)
    assert [judge["reference_plan"] for judge in claim["judges"]] == ["full", "full"]
    assert claim["judges"][0]["difference"] == pytest.approx(-0.5)
    assert "is as good as the best other full-width sampler, full. It needs" in claim_sentence(claim)


def test_seeds_are_added_for_the_reference_of_each_judge() -> None:
    few = scored("sampler", "4x1.00", 1.0, 3.6)
    near = standing(scored("front", "few FLOPs", 1.0, 3.0, noise=0.1), few, rules=Rules(0.05, (5, 10)))
    assert near.near() == {("few FLOPs", ""), ("4x1.00", ""), ("full", "")}


def test_a_blur_is_seen_where_either_judge_sees_it_of_its_own_reference() -> None:
    point = scored("front", "few FLOPs", 1.0, 3.0)
    for blur, sees in (((-0.5, 0.0), (0.0, -0.2)), False), (((-0.5, 0.0), (0.0, 0.9)), True):
        few = scored("sampler", "4x1.00", 1.0, 3.6, blur=blur[0])
        full = scored("full", "full", 2.0, 3.0, blur=blur[1])
        found = compare_plans(pd.concat([full, few, point]), RULES)
        assert found is not None
        assert found.sees_blur is sees


def test_full_width_samplers_of_equal_quality_are_what_the_saving_is_held_against() -> None:
    samplers = scored("sampler", "6x1.00", 2.0, 3.0, sampler="a"), scored("sampler", "4x1.00", 2.0, 3.0, sampler="a")
    claim = make_claim(standing(scored("front", "few FLOPs", 2.01, 3.0), *samplers), 64)
    assert claim["holds"]
    assert claim["best_full_width"]["plan"] == "4x1.00"
    assert claim["flops_saved"] == 0.75
    assert claim["flops_saved_against_best_full_width"] == pytest.approx(1 - 1.0 / 2.4)


def test_seeds_are_wanted_for_near_points_and_samplers_that_would_change_the_claim() -> None:
    rules = Rules(0.05, (5, 10))
    near = scored("front", "few FLOPs", 2.0, 3.0, noise=0.2)
    passing = scored("front", "quick", 2.0, 3.0)
    hopeless = scored("front", "quick", 2.4, 3.0)  # its mean difference exceeds the margin
    sampler = scored("sampler", "4x1.00", 2.05, 3.0, sampler="a", noise=0.2)
    found = standing(near, passing, sampler, rules=rules)
    assert found.near() == {("few FLOPs", ""), ("4x1.00", "a"), found.references[0].key}
    assert standing(passing, rules=rules).near() == set()
    # A near point ends the sequence, so it is wanted where it is dearer, too.
    dearer = standing(near.assign(gflops=3.9), passing, rules=rules)
    assert dearer.near() == {("few FLOPs", ""), dearer.references[0].key}
    # No seed can help past a point that fails for good.
    assert standing(near, hopeless, rules=rules).near() == set()
    # Nor does a sampler matter where the dearest point fails for good: nothing can be claimed.
    assert standing(hopeless, sampler, rules=rules).near() == set()


def test_points_are_tested_from_the_dearest_down_to_the_first_that_fails() -> None:
    cheap, dear = scored("front", "few FLOPs", 2.0, 3.0), scored("front", "quick", 2.0, 3.0)
    claim = make_claim(standing(cheap, dear), 64)
    assert (claim["plan"], claim["correction"]["tested"], claim["correction"]["of"]) == ("few FLOPs", 2, 2)
    worse = scored("front", "quick", 2.4, 3.0)
    claim = make_claim(standing(cheap, worse), 64)
    assert (claim["holds"], claim["plan"], claim["correction"]["tested"]) == (False, "quick", 1)
    claim = make_claim(standing(scored("front", "few FLOPs", 2.4, 3.0), dear), 64)
    assert (claim["holds"], claim["plan"], claim["correction"]["tested"]) == (True, "quick", 2)


def test_a_dear_point_that_scored_no_better_in_the_search_does_not_end_the_sequence() -> None:
    cheap = scored("front", "few FLOPs", 2.0, 3.0).assign(fid_search=2.0)
    other = scored("front", "quick", 2.4, 3.0)  # on the front by another objective
    assert make_claim(standing(cheap, other.assign(fid_search=2.4)), 64)["plan"] == "few FLOPs"
    assert not make_claim(standing(cheap, other.assign(fid_search=1.9)), 64)["holds"]


def test_a_plan_with_more_seeds_is_compared_at_its_last_complete_look() -> None:
    rules = Rules(0.05, (5, 10))
    full, point = scored("full", "full", 2.0, 3.0, seeds=10), scored("front", "few FLOPs", 2.0, 3.0, seeds=9)
    found = compare_plans(pd.concat([full, point]), rules)
    assert found is not None
    assert found.points[0].seeds == 5
    level = make_claim(found, 64)["level"]
    assert level == pytest.approx(0.975)


def test_no_point_cheaper_than_full_width_makes_no_claim() -> None:
    claim = make_claim(standing(), 64)
    assert (claim["holds"], claim["plan"], claim["judges"]) == (False, None, [])


def test_scores_that_are_not_finite_are_left_out() -> None:
    point = scored("front", "few FLOPs", 2.0, 3.0)
    point.loc[0, "second_fid"] = np.nan
    assert make_claim(standing(point), 64)["seeds"] == 4


def test_without_full_width_there_is_no_claim() -> None:
    assert compare_plans(scored("front", "quick", 2.0, 3.0), RULES) is None


def test_seeds_are_wanted_for_samplers_dearer_than_full_width_only_where_they_make_a_saving_smaller() -> None:
    rules, point = Rules(0.05, (5, 10)), scored("front", "few FLOPs", 1.0, 3.0)
    near = [scored("sampler", plan, 1.04, 3.1, noise=0.2) for plan in ("4x1.00", "9x1.00")]
    # The best sampler on both judges passes, and takes more steps: a saving is stated against it, or a cheaper one.
    best = scored("sampler", "12x1.00", 1.0, 2.96)
    found = standing(point, *near, best, rules=rules)
    assert found.near() == {("4x1.00", ""), ("9x1.00", ""), ("12x1.00", "")}
    # The judges differ on the best, and none passes: the saving is stated against full width's own steps alone.
    best = scored("sampler", "12x1.00", 1.0, 3.6)
    found = standing(point, *near, best, rules=rules)
    assert found.cheapest_sampler() is None
    assert found.near() == {("4x1.00", ""), ("12x1.00", ""), ("full", "")}
    assert standing(point, near[1], best, rules=rules).near() == set()
