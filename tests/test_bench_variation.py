"""What a row of bench-variation says of searches whose costs are known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.variation import IMAGES, row_cells

GFLOPS = 1000 / IMAGES
"""GFLOPs per image of an evaluation of one TFLOP."""


def curve(reached: int) -> np.ndarray:
    """Return 200 shares that pass 99% at this evaluation."""
    return np.where(np.arange(1, 201) >= reached, 0.995, 0.9)


def test_tflops_are_those_of_the_evaluations_until_the_share_is_reached() -> None:
    costs = np.arange(1, 201) * GFLOPS
    cells = row_cells([curve(2), curve(4), curve(100)], [costs] * 3)
    assert cells["to 99%, median"] == "4"
    assert cells["to 99%, quartiles"] == "4 to 100"
    assert cells["network TFLOPs to 99%, median"] == f"{1 + 2 + 3 + 4:.2f}"
    assert (cells["at 50"], cells["at 100"]) == ("0.995", "0.995")


@pytest.mark.parametrize(("reached", "middle"), [((4, 5, 999), "5"), ((4, 999, 999), "> 200")])
def test_searches_that_do_not_reach_it_stay_in_the_median(reached: tuple[int, ...], middle: str) -> None:
    cells = row_cells([curve(at) for at in reached], [np.full(200, GFLOPS)] * len(reached))
    assert cells["to 99%, median"] == middle
    assert cells["network TFLOPs to 99%, median"] == (f"{middle}.00")
    assert cells["to 99%, quartiles"].endswith("> 200")
