"""The sentences on numbers: what is promised to those who read nothing else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stepfront.dashboards.claim import CONFIRM_AGAIN, claim_sentence
from stepfront.dashboards.earlier import earlier_sentences
from stepfront.dashboards.summary import luck_of_the_front, summary_sentences
from stepfront.tables.facts import earlier_weights
from stepfront.tables.search_tables import SearchTables, read_tables


@pytest.fixture
def tables(search: Path) -> SearchTables:
    return read_tables(search)


@pytest.fixture
def unconfirmed(make_search: Callable[..., Path]) -> SearchTables:
    return read_tables(make_search("unconfirmed", confirmed=False))


def test_a_confirmed_search_begins_with_its_claim(tables: SearchTables) -> None:
    first = summary_sentences(tables)[0]
    assert first == claim_sentence(tables.savings)
    assert "41% fewer FLOPs" in first


def test_a_search_confirmed_by_the_rule_of_an_earlier_version_claims_nothing(tables: SearchTables) -> None:
    savings = {"trial": 3, "plan": "20x0.50", "flops_saved": 0.4, "difference_low": -0.1, "difference_high": 0.5}
    first = summary_sentences(replace(tables, facts={**tables.facts, "savings": savings}))[0]
    assert first == CONFIRM_AGAIN


def test_an_earlier_search_that_had_no_model_has_a_reason_and_no_weight(tables: SearchTables) -> None:
    weighed = {"name": "digits", "search": "/runs/digits", "trials": 20, "after": [4, 8], "weight": [0.5, 0.25]}
    lacking = weighed | {"name": "faces", "after": [], "weight": [], "lacking": "no model: 3 of 12 needed"}
    assert earlier_sentences({"earlier": [weighed, lacking]}) == [
        "It started from digits (20 trials): its weight in the model of FID was 0.50 after 4 trials and 0.25 after 8.",
        "It started from faces (20 trials), of which it used the front alone: no model: 3 of 12 needed.",
    ]
    assert earlier_weights({"earlier": [weighed, lacking]}) == {"digits": 0.25}


def test_the_samplers_of_an_earlier_search_are_named_where_learning_tried_them() -> None:
    one = {"name": "digits", "search": "/runs/digits", "trials": 20, "after": [4], "weight": [0.5]}

    def learnt(steps: int, taken: str, *starts: str) -> dict[str, Any]:
        tried = [{"name": name, "first": 1.0, "least": 1.0, "earlier": name.startswith("the")} for name in starts]
        return {"steps": steps, "taken": taken, "tried": tried}

    ours, hand = "the sampler of digits", "ddim, edm grid"
    facts = {"earlier": [one], "learning": [learnt(6, ours, hand, ours), learnt(2, hand, hand, ours), learnt(4, hand)]}
    assert earlier_sentences(facts)[1:] == [
        "Learning tried the samplers of digits of 2 and 6 steps as starts, and took those of 6."
    ]
    assert earlier_sentences(facts | {"learning": [learnt(4, hand, hand, ours)]})[1].endswith("and took none of them.")
    assert len(earlier_sentences(facts | {"learning": [learnt(4, hand, hand)]})) == 1


def test_judges_that_disagree_are_named(tables: SearchTables) -> None:
    example = {"better_on_first": "20x0.50", "better_on_second": "20x0.75", "trials": [1, 2], "differences": [-1, 1]}
    found = {"judges": ["pixels", "random"], "pairs": 2, "examples": [example]}
    facts = {**tables.facts, "savings": {**tables.savings, "disagreements": found}}
    second = summary_sentences(replace(tables, facts=facts))[1]
    assert second.startswith("The judges disagree on the order of 2 pairs of front points")
    assert "20x0.50 is better than 20x0.75 on pixels, and worse on random" in second


def test_the_closest_baseline_is_named(tables: SearchTables) -> None:
    said = "The closest baseline, two cut, covers 97.3% of the best known front's hypervolume, the search 99.1%."
    assert said in summary_sentences(tables)


def test_a_baseline_that_is_not_beaten_is_named(tables: SearchTables) -> None:
    methods = tables.methods.assign(share=[0.97, 0.973, 0.9, 0.9, 0.9, 0.9])
    sentences = summary_sentences(replace(tables, methods=methods))
    assert any(sentence.startswith("The search does not beat its baselines: two cut") for sentence in sentences)


def test_luck_is_what_the_front_loses_beyond_full_width(tables: SearchTables) -> None:
    # The front rises by 0.3 on held-out noise seeds, full width by 0.1.
    assert luck_of_the_front(tables.confirm) == pytest.approx(0.2)
    points = len(tables.front)
    stayed = f"{points - 1} of {points} confirmed points stayed on the front."
    said = f"by 0.20 more than full width's, an estimate of the luck in its scores; {stayed}"
    assert any(sentence.endswith(said) for sentence in summary_sentences(tables))


def test_luck_is_unknown_without_full_width(tables: SearchTables) -> None:
    confirm = tables.confirm[tables.confirm.kind == "front"]
    assert luck_of_the_front(confirm) is None
    assert not any("luck" in sentence for sentence in summary_sentences(replace(tables, confirm=confirm)))


@pytest.mark.parametrize(
    ("luck", "said"),
    [(0.75, "rose by 0.75 more"), (-0.1, "mean FID rose no more than full width's"), ("Nearly none.", "Nearly none.")],
)
def test_the_luck_that_the_search_states_is_taken(tables: SearchTables, luck: float | str, said: str) -> None:
    facts = {**tables.facts, "savings": {**tables.savings, "luck": luck}}
    assert any(said in sentence for sentence in summary_sentences(replace(tables, facts=facts)))


def test_an_unconfirmed_search_says_so(unconfirmed: SearchTables) -> None:
    assert any("not confirmed on held-out noise seeds" in sentence for sentence in summary_sentences(unconfirmed))


def test_an_unconfirmed_saving_is_the_search_s_own(unconfirmed: SearchTables) -> None:
    front = unconfirmed.front.assign(gflops=np.linspace(3.0, 12.0, len(unconfirmed.front)))
    cheapest_equal = replace(unconfirmed, front=front.assign(fid=17.9))
    first = summary_sentences(cheapest_equal)[0]
    assert first.startswith("By the search's own scores")
    assert "needs 75% fewer FLOPs" in first
    assert summary_sentences(unconfirmed)[0].startswith("No cheaper plan of the front reaches the FID of full width")


def test_front_points_ahead_of_their_baseline_are_counted(tables: SearchTables) -> None:
    versus = tables.versus.iloc[:3].assign(fid=20.0, baseline_fid=[20.5, 19.0, 21.5])
    said = "2 of 3 front points score better than every baseline of equal or lower cost, by 1.00 FID in the median."
    assert said in summary_sentences(replace(tables, versus=versus))
    said = "1 of 1 front point scores better than every baseline of equal or lower cost, by 0.50 FID in the median."
    assert said in summary_sentences(replace(tables, versus=versus.iloc[:1]))


def test_a_point_without_a_baseline_is_not_counted(tables: SearchTables) -> None:
    versus = tables.versus.iloc[:2].assign(baseline_fid=[np.nan, tables.versus.fid.iloc[1] + 1])
    assert any(s.startswith("1 of 1 front point ") for s in summary_sentences(replace(tables, versus=versus)))


def test_noise_and_the_points_within_it_are_stated_where_they_are_known(tables: SearchTables) -> None:
    assert not [sentence for sentence in summary_sentences(tables) if "no more than noise" in sentence]
    front = tables.front.assign(within_noise=[-1, int(tables.front.trial[0]), *[-1] * (len(tables.front) - 2)])
    noisy = replace(tables, front=front, facts={**tables.facts, "noise": {"spread": 0.0834}})
    sentences = summary_sentences(noisy)
    assert "The FID of one plan moves by 8.3% between noise seeds." in sentences
    assert f"1 of {len(front)} front points is better than a cheaper one by no more than noise." in sentences
    assert summary_sentences(replace(tables, facts={**tables.facts, "noise": None})) == summary_sentences(tables)


def test_the_effort_counts_trials_failures_and_time(tables: SearchTables) -> None:
    last = summary_sentences(tables)[-1]
    assert last.startswith("It took 120 trials, of which 1 failed (2.4 PFLOPs in networks, 1 h 2 min)")


def test_a_search_without_trials_has_one_sentence(tables: SearchTables) -> None:
    nothing = {name: pd.DataFrame(columns=getattr(tables, name).columns) for name in ("trials", "front", "versus")}
    nothing |= {"methods": tables.methods.iloc[:0], "confirm": tables.confirm.iloc[:0]}
    assert summary_sentences(replace(tables, facts={}, **nothing)) == ["No trial has completed yet."]
