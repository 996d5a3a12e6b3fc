"""Numbers and plans as people read them."""

import math

import pytest

from stepfront.dashboards.formatting import (
    decimal,
    duration,
    flops,
    interval,
    percent,
    plural,
    ratio,
    short_plan,
    significant,
)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59.6, "1 min"), (200, "3 min 20 s"), (7200, "2 h"), (18120, "5 h 2 min"), (273600, "3 d 4 h")],
)
def test_a_span_of_time_has_two_units_at_most(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(1.23456, "1.23"), (1234.5, "1,234"), (0.00123, "0.00123"), (12, "12.0"), (0, "0"), (math.nan, "–"), (None, "–")],
)
def test_amounts_keep_three_digits(value: float | None, said: str) -> None:
    assert significant(value) == said


def test_missing_numbers_are_dashes() -> None:
    assert decimal(None) == decimal(math.nan) == percent(None) == percent(ratio(1.0, None)) == "–"
    assert interval(1.0, None) == ""
    assert interval(29.1, 30.4) == "[29.10, 30.40]"


def test_arithmetic_is_shown_in_the_largest_fitting_unit() -> None:
    assert [flops(10.0**power) for power in (0, 3, 6, 9)] == ["1 GFLOPs", "1 TFLOPs", "1 PFLOPs", "1 EFLOPs"]
    assert flops(2.5e6) == "2.5 PFLOPs"


def test_a_long_plan_says_how_many_runs_were_left_out() -> None:
    plan = "12x0.50 8x0.75 30x1.00"
    assert short_plan(plan, 30) == plan
    assert short_plan(plan, 16) == "12x0.50 8x0.75 … 1 more run"


def test_counts_agree_with_their_noun() -> None:
    assert (plural(1, "trial"), plural(1200, "trial")) == ("1 trial", "1,200 trials")
