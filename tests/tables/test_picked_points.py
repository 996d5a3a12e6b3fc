"""Points of a front by label, trial and query, and what is said where there is none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stepfront.errors import InputError
from stepfront.search.cli.terminal import json_rows
from stepfront.tables.points import pick_point

FRONT = pd.DataFrame(
    {
        "trial": [30, 2, *range(40, 52)],
        "fid": [1.0, 9.0, *[5.0] * 12],
        "gflops": [9.0, 1.0, *[5.0] * 12],
        "label": ["best,knee", "cheapest", *[""] * 12],
        "fid_confirmed": [np.nan] * 14,
        "belongs": [True] * 14,
        "within_noise": [2, -1, *[-1] * 12],
    }
)


def test_a_point_has_one_of_its_labels_or_its_number() -> None:
    assert [pick_point(FRONT, point)["trial"] for point in ("knee", "cheapest", "45", "gflops<=2")] == [30, 2, 45, 2]


@pytest.mark.parametrize("point", ["", " ", ",", "middle", "7"])
def test_a_wrong_point_names_what_is_possible(point: str) -> None:
    with pytest.raises(InputError) as caught:
        pick_point(FRONT, point)
    line = str(caught.value)
    assert line.startswith(f"no point {point!r} on the front; possible: knee, best, cheapest, ")
    assert "'fid<=12' and 'gflops<=1.5'" in line
    assert line.endswith("trials 2, 30, 40, 41, 42, 43, 44, 45, 46, 47, ...")


def test_a_query_reads_what_the_confirmation_found() -> None:
    front = pd.DataFrame({"trial": [1, 2, 3, 4], "gflops": [1.0, 1.5, 2.0, 3.0], "fid": [11.9, 11.0, 10.0, 9.0]})
    front = front.assign(label="", belongs=[False, True, True, True])
    some = front.assign(fid_confirmed=[13.5, 12.5, np.nan, np.nan])
    assert pick_point(some, "fid<=12")["trial"] == 2  # the scores of the search, but no point that has left the front
    every = front.assign(fid_confirmed=[13.5, 12.5, 9.5, 9.6])
    assert [pick_point(every, query)["trial"] for query in ("fid<=12", "gflops<=5", "gflops<=1.9")] == [3, 3, 2]
    assert pick_point(every, "fid<=12")["fid"] == 10.0, "the row is the front's own"
    assert pick_point(every, "1")["trial"] == 1, "a trial's number is never turned down"
    with pytest.raises(InputError, match=r"^no front point has a confirmed fid <= 9; the least is 9.5$"):
        pick_point(every, "fid<=9")


def test_no_point_within_noise_is_null_in_json() -> None:
    assert [row["within_noise"] for row in json_rows(FRONT)][:3] == [2, None, None]
