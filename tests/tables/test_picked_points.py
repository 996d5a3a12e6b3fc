"""Points of a front by label, trial and query, and what is said where there is none."""

from __future__ import annotations

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


def test_no_point_within_noise_is_null_in_json() -> None:
    assert [row["within_noise"] for row in json_rows(FRONT)][:3] == [2, None, None]
