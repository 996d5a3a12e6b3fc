"""The sentence of a claim: everything that it rests on, or why there is none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from stepfront.dashboards.claim import (
    CONFIRM_AGAIN,
    claim_sentence,
    claim_tile,
    disagreement_sentence,
    flops_saved,
    reach_sentence,
    unconfirmed_sentence,
)
from stepfront.tables.search_tables import read_tables


@pytest.fixture
def claim(search: Path) -> dict[str, Any]:
    return read_tables(search).savings


def test_a_claim_states_all_that_it_rests_on(claim: dict[str, Any]) -> None:
    text = claim_sentence(claim)
    for part in (
        "At a margin of 5%",
        f"the plan {claim['plan']} is as good as the best full-width sampler, 18x1.00 (dpmpp_2m, logsnr grid)",
        "on both judges",
        "41% fewer FLOPs and 30% less latency than full width at every step, 20x1.00",
        "12% fewer FLOPs than 9x1.00 (dpmpp_2m, logsnr grid), the cheapest full-width sampler of equal quality",
        "FID (pixels) 18.30 against 18.10, difference 0.200 [-0.100, 0.500], limit 0.905",
        "FID (random) 7.10 against 7.00, difference 0.100 [0.000, 0.200], limit 0.350",
        "10 held-out noise seeds of 1,024 images, intervals at 97.5%",
    ):
        assert part in text


def test_a_full_width_sampler_that_needs_less_is_not_hidden(claim: dict[str, Any]) -> None:
    assert "20% more FLOPs than 9x1.00" in claim_sentence(claim | {"flops_saved_against_best_full_width": -0.2})


def test_a_point_that_is_the_full_width_sampler_itself_saves_steps_not_widths(claim: dict[str, Any]) -> None:
    itself = {"plan": "9x1.00", "sampler": "", "best_full_width": {"plan": "9x1.00", "sampler": ""}}
    text = claim_sentence(claim | itself | {"flops_saved_against_best_full_width": 0.0})
    assert text.startswith("Steps are saved, widths are not: at a margin of 5%, full width in fewer steps, 9x1.00, is")
    assert "41% fewer FLOPs and 30% less latency than 20x1.00" in text
    assert "9x1.00, is as good as the best other full-width sampler, " in text
    assert "No narrower plan is shown to be as good" in text


def with_references(claim: dict[str, Any], *plans: str) -> dict[str, Any]:
    own = [{"reference_plan": plan, "reference_sampler": ""} for plan in plans]
    return claim | {"judges": [judge | one for judge, one in zip(claim["judges"], own, strict=True)]}


def test_judges_that_disagree_on_the_best_full_width_sampler_are_told_apart(claim: dict[str, Any]) -> None:
    two = with_references(claim, "10x1.00", "20x1.00")
    words = "the best full-width sampler, 10x1.00 on pixels and 20x1.00 on random"
    assert f"as good as {words}, on both judges. It needs" in claim_sentence(two)
    assert f"to be as good as {words}. " in claim_sentence(two | {"holds": False})
    blurred = two | {"holds": False, "blurred_reference": {"passes": True, "judges": two["judges"]}}
    assert f"the images of {words}, pass as equal" in claim_sentence(blurred)


@pytest.mark.parametrize(("help_", "said"), [(True, "would help"), (False, "would not help")])
def test_where_none_holds_the_nearest_plan_and_what_would_help_are_named(
    claim: dict[str, Any], help_: bool, said: str
) -> None:
    nothing = dict.fromkeys(("flops_saved", "flops_saved_against_best_full_width", "latency_saved"))
    text = claim_sentence(claim | nothing | {"holds": False, "more_may_help": help_})
    assert text.startswith("No saving at equal quality is claimed: at a margin of 5%, the nearest plan")
    assert "difference 0.200 [-0.100, 0.500], limit 0.905" in text
    assert f"More seeds or images {said}" in text
    assert claim_tile(claim | nothing | {"holds": False})[0] == "none"
    assert flops_saved(claim | {"holds": False}) is None


def test_the_number_of_tested_points_is_stated(claim: dict[str, Any]) -> None:
    tested = claim | {"correction": {"tested": 3, "of": 5}}
    assert "intervals at 97.5%, 3 points tested from the dearest down." in claim_sentence(tested)
    failed = claim_sentence(tested | {"holds": False})
    assert f"the dearest plan below full width, {claim['plan']}, is not shown" in failed
    assert "from the dearest down" in failed


def test_a_blur_that_the_judges_do_not_see_is_the_reason(claim: dict[str, Any]) -> None:
    blurred = [judge | {"score": 16.0, "difference": -2.1} for judge in claim["judges"]]
    text = claim_sentence(claim | {"holds": False, "blurred_reference": {"passes": True, "judges": blurred}})
    assert text.startswith("No saving at equal quality is claimed, because the judges do not see a blur")
    assert "FID (pixels) 16.00 against 18.10, difference -2.100" in text
    assert "train the supernet longer" in text
    seen = claim_sentence(claim | {"holds": False, "blurred_reference": {"passes": False, "judges": blurred}})
    assert "blur" not in seen


def test_one_judge_is_not_enough(claim: dict[str, Any]) -> None:
    text = claim_sentence(claim | {"holds": False, "judges": claim["judges"][:1]})
    assert "A second judge has not scored it yet" in text


def test_a_front_without_a_cheaper_point_is_named(claim: dict[str, Any]) -> None:
    text = claim_sentence(claim | {"holds": False, "plan": None, "judges": []})
    assert "no confirmed point of the front is cheaper than full width" in text


def test_an_unconfirmed_search_has_no_sentence_and_an_older_one_is_to_be_confirmed_again() -> None:
    assert claim_sentence({}) == ""
    assert claim_sentence({"flops_saved": 0.9}) == CONFIRM_AGAIN
    assert flops_saved({"flops_saved": 0.9}) is None


def test_judges_that_agree_need_no_sentence(claim: dict[str, Any]) -> None:
    assert disagreement_sentence(claim) == ""
    assert disagreement_sentence({}) == ""


def test_a_reference_that_no_plan_of_the_space_can_be_is_named(claim: dict[str, Any]) -> None:
    assert not reach_sentence(claim)
    assert not reach_sentence(claim | {"out_of_reach": None})
    best = "18x1.00 (dpmpp_2m, logsnr grid)"
    said = f"No plan of this search takes 18 steps, as the best full-width sampler, {best}, does."
    assert reach_sentence(claim | {"out_of_reach": {"steps": 18}}) == (
        f"{said} A search with --set sampler.steps=18 has such plans."
    )
    assert reach_sentence(claim | {"out_of_reach": {"steps": 18, "stages": 18}}) == (
        f"{said} A search with --set sampler.steps=18 --set space.stages=18 has such plans."
    )
    missed = {"steps": 20, "plan": "20x1.00", "sampler": "", "features": "random"}
    assert reach_sentence(claim | {"out_of_reach": missed}) == (
        "No plan of this search takes 20 steps, as the best full-width sampler on random, 20x1.00, does. A search with "
        "--set sampler.steps=20 has such plans."
    )


def test_the_tile_names_margin_and_judges(claim: dict[str, Any]) -> None:
    latency = claim | {"latency_saved": 0.3}
    assert claim_tile(claim | {"latency_saved": None}) == (
        "41%",
        "fewer FLOPs at equal quality (margin 5%, both judges); 12% fewer FLOPs than 9x1.00, full width's best",
    )
    assert claim_tile(latency)[1].startswith("fewer FLOPs and 30% less latency at equal quality (margin 5%, both")
    dearer = claim | {"flops_saved_against_best_full_width": -0.01}
    assert claim_tile(dearer)[1].endswith("; 1% more FLOPs than 9x1.00, full width's best")


def test_points_that_came_after_the_confirmation_are_counted() -> None:
    front = pd.DataFrame({"fid_confirmed": [1.0, math.nan, math.nan]})
    assert unconfirmed_sentence(front, "runs/a").startswith("2 of 3 front points came after the confirmation")
    assert "`stepfront confirm runs/a`" in unconfirmed_sentence(front, "runs/a")
    assert unconfirmed_sentence(front[:1], "runs/a") == unconfirmed_sentence(front[1:], "runs/a") == ""
