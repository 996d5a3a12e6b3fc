"""Plans: their text, and what none can be."""

import pytest

from stepfront.errors import InputError
from stepfront.trainers.diffusion.plan import SKIP, Plan
from stepfront.trainers.variant import parse_runs, runs_text

TIMES = (900.0, 600.0, 300.0, 0.0)


@pytest.mark.parametrize(
    ("widths", "text"),
    [
        ((0.5,) * 12 + (0.75,) * 8 + (1.0,) * 30, "12x0.50 8x0.75 30x1.00"),
        ((0.5, SKIP, SKIP, SKIP, 1.0), "1x0.50 3xskip 1x1.00"),
        ((0.375, 0.375, 0.3125), "2x0.375 1x0.3125"),
        ((1.0, 0.5, 1.0), "1x1.00 1x0.50 1x1.00"),
        ((), ""),
    ],
)
def test_run_lengths_read_as_people_write_them_and_back(widths: tuple[float, ...], text: str) -> None:
    assert runs_text(widths) == text
    assert parse_runs(text) == widths


@pytest.mark.parametrize("text", ["12", "x0.5", "12x", "axb", "3xSkip", "-1x0.5", "2x0.5,1x1", "2x1e3", "2*0.5"])
def test_text_that_is_no_run_is_shown_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match=r"is not a run; runs look like 12x0\.50 or 3xskip"):
        parse_runs(f"4x1.00 {text}")


def test_a_plan_knows_its_runs_and_the_steps_it_takes() -> None:
    plan = Plan(TIMES, (SKIP, 0.5, SKIP, 1.0))
    assert plan.runs == "1xskip 1x0.50 1xskip 1x1.00"
    assert plan.taken == (1, 3)


@pytest.mark.parametrize(
    ("times", "widths", "message"),
    [
        (TIMES, (1.0,) * 3, "4 times and 3 widths"),
        ((0.0, 300.0), (1.0, 1.0), "decrease, from noise to image"),
        ((300.0, 300.0), (1.0, 1.0), "decrease, from noise to image"),
        (TIMES, (SKIP,) * 4, "at least one step"),
        ((), (), "at least one step"),
    ],
)
def test_impossible_plans_are_refused(times: tuple[float, ...], widths: tuple[float, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Plan(times, widths)


def test_a_plan_on_other_times_keeps_its_weights_and_marks() -> None:
    plan = Plan((900.0, 1.0), (1.0, 1.0), marks=("", "r"), weights="abc")
    moved = plan.on_times((800.0, 2.0), "unipc_2")
    assert (moved.weights, moved.marks, moved.times, moved.solver) == ("abc", ("", "r"), (800.0, 2.0), "unipc_2")


def test_widths_that_are_not_there_are_refused_with_those_that_are() -> None:
    plan = Plan(TIMES, (0.5, 0.6, SKIP, 1.0))
    plan.check_widths((0.5, 0.6, 1.0))
    with pytest.raises(InputError, match=r"width 0\.6; possible: 0\.5, 1\.0"):
        plan.check_widths((0.5, 1.0))
