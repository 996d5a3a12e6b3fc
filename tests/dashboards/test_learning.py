"""The report's section of learnt samplers: which times are drawn, and what fitting is said to have gained."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd

from stepfront.dashboards.score_figures.times import MOST_LINES, times_data, times_figure
from stepfront.dashboards.sections.learning import confirmed_gains, learning_section

GRIDS = {"3": {"trailing": [999.0, 666.0, 333.0], "leading": [666.0, 333.0, 0.0]}}


def record(number: int = 0, **changes: Any) -> dict[str, Any]:
    """Return a record as search.json has it; `number` is its FID, too."""
    one: dict[str, Any] = {"plan": "1x0.50 2x1.00", "steps": 3, "digest": str(number) * 16, "chosen": "learnt"}
    one |= {"times": [900.0 - number, 300.0, 9.0], "network_times": [900.0 - number, 300.0, 9.0], "fid": float(number)}
    one |= {
        "start_fid": 5.0,
        "own_fid": None,
        "start": "ddim, <leading> grid",
        "taken": "the sampler of <b>",
        "train": 1.5,
        "held_out": 7.25,
    }
    one |= {"start_held_out": 9.0, "calls": 12345, "tflops": 0.25, "seconds": 61.0, "improves": True}
    return one | changes


def tables(*records: dict[str, Any], **more: Any) -> Any:
    facts = {"learning": list(records), "hand_grids": GRIDS}
    given = {"facts": facts, "fid_name": "FID (random)", "front": pd.DataFrame(), "confirm": pd.DataFrame()}
    given["trials"] = pd.DataFrame({"trial": []})
    return SimpleNamespace(**given | more)


def test_the_best_samplers_of_each_number_of_steps_are_drawn_beside_the_hand_grids() -> None:
    many = [record(number) for number in range(MOST_LINES + 2)]
    told = record(0, plan="4x1.00", steps=4, times=[9.0, 7.0, 5.0, 3.0], network_times=[9.5, 7.0, 5.0, 3.0])
    three, four = times_data(tables(*reversed(many), told, record(1, chosen="closed form", steps=5)))
    assert (three.steps, len(three.learnt)) == (3, MOST_LINES)
    assert [times[0] for times in three.learnt.values()] == [900.0 - number for number in range(MOST_LINES)]
    assert three.hand == GRIDS["3"]
    assert three.told == {}
    assert list(four.told.values()) == [[9.5, 7.0, 5.0, 3.0]]
    assert four.hand == {}
    drawn = times_figure(three)
    assert [list(line.y) for line in drawn.data[:2]] == list(GRIDS["3"].values())
    assert list(drawn.data[2].x) == [1, 2, 3]
    assert len(drawn.data) == 2 + MOST_LINES


def test_the_section_shows_over_fitting_and_costs_and_is_left_out_without_learning() -> None:
    assert learning_section(tables()) == ""
    shown = learning_section(tables(record(2, own_fid=4.0)))
    cells = ("1.50", "7.25", "9.00", "2.00", "5.00", "4.00", "12,345", "0.250", "61", "&lt;leading&gt;")
    assert "sampler of &lt;b&gt;" in shown
    assert [cell for cell in cells if f"{cell}</td>" not in shown and cell not in shown] == []
    closed = learning_section(tables(record(1, chosen="closed form", own_fid=4.0, improves=False)))
    assert "No learnt sampler was better" in closed
    assert "its own; the best other is closed form" in closed


def test_what_fitting_gained_is_the_change_of_the_means_on_both_judges() -> None:
    front = pd.DataFrame({"trial": [7, 8, 9], "origin": ["fit", "fit", "mutation"], "parents": [[3], [4], [1, 2]]})
    front = front.assign(plan=["3x1.00", "4x1.00", "5x1.00"], learnt=["a", "b", ""])
    scored = [("3x1.00", "fit a", 2.0, 20.0), ("3x1.00", "fit a", 4.0, 40.0), ("3x1.00", "", 6.0, 30.0)]
    scored += [("4x1.00", "fit b", 1.0, 1.0), ("5x1.00", "", 1.0, 1.0), ("3x1.00", "ddim, edm grid", 9.0, 9.0)]
    confirm = pd.DataFrame(scored, columns=["plan", "sampler", "fid", "second_fid"])
    gains = confirmed_gains(tables(front=front, confirm=confirm))
    assert gains.to_dict("records") == [
        {"trial": 7, "parent": 3, "fid_before": 6.0, "fid": 3.0, "second_before": 30.0, "second": 30.0}
    ]  # the parent of 8 was not confirmed
    shown = learning_section(tables(record(), front=front, confirm=confirm))
    assert "-50.0%" in shown
    one_judge = tables(front=front, confirm=confirm.drop(columns="second_fid"))
    assert confirmed_gains(one_judge)["second"].isna().all()
    assert confirmed_gains(tables(front=front.head(0), confirm=confirm)).empty
    # Where plans choose their samplers, the parent's scores are those on its own choice.
    trials = pd.DataFrame(
        {"trial": [3, 4], "genome": ["222/01", "222/00"], "solver": "ddim", "grid": ["edm", "leading"]}
    )
    chosen = tables(front=front, confirm=confirm, trials=trials)
    chosen.facts.update(solver="ddim", grid="leading")
    assert confirmed_gains(chosen)["fid_before"].tolist() == [9.0]
    # Weights that were fitted to a plan on a fitted sampler: its scores are those before.
    twice = trials.assign(genome="222", origin="fit", learnt=["z", ""])
    both = pd.concat([confirm, pd.DataFrame([("3x1.00", "fit z", 5.0, 5.0)], columns=confirm.columns)])
    assert confirmed_gains(tables(front=front, confirm=both, trials=twice))["fid_before"].tolist() == [5.0]


def test_measured_samplers_are_a_table_and_nothing_is_said_of_learning() -> None:
    measured = [record(4, steps=n, learnt="closed_form", chosen="closed form", start=f"ddim {n}") for n in (10, 2)]
    shown = learning_section(tables(*measured))
    assert shown.index("ddim 2") < shown.index("ddim 10")
    assert "Nothing was learnt" in shown
    assert "Over-fitting" not in shown
