"""The benchmark of methods on measured plans: every method runs on a table, and its page has their rows."""

from __future__ import annotations

import numpy as np

from benchmarks import search
from benchmarks.plan_table import EnumeratedTable


def small_table() -> EnumeratedTable:
    """Return a table of three genes of three widths, whose FID is the sum of the genes' gaps."""
    gap = np.array([[0.9, 0.3, 0.0], [0.5, 0.1, 0.0], [0.4, 0.2, 0.0]])
    plans = np.indices((3, 3, 3)).reshape(3, -1)
    fids = np.exp(sum(gap[unit, plans[unit]] for unit in range(3)))
    costs = np.tile([0.1, 0.4, 1.0], (3, 1))
    about = {"supernet": "made up", "sampler": "3 steps", "images": 500, "score": "FID of nothing", "command": ""}
    return EnumeratedTable((0.25, 0.5, 1.0), 3, costs, gap, np.linspace(-2, 2, 3), about, fids, fids - 1)


def test_every_method_has_a_row_and_a_complete_search_has_all_of_the_hypervolume() -> None:
    table = small_table()
    curves = search.measure(table, 1, 27)
    assert curves["ours, default"].shares[0, -1] == 1.0
    assert curves["random, no repeats"].shares[0, -1] == 1.0
    assert all((np.diff(found.shares[0]) >= 0).all() for found in curves.values())
    page = search.section("small", table, curves, "")
    assert all(f"| {name} |" in page for name in curves)
    assert "| paired | 1.000 | 1.000 |" in page  # as FID grows with it in the table
