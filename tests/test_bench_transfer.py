"""What carried searches are measured on and by: the controls, and evaluations relative to those of the cold search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.surrogate_table import TABLES, read_surrogate_table
from benchmarks.transfer import (
    GENES,
    UNRELATED,
    Comparison,
    Run,
    Tables,
    comparisons,
    reversed_table,
    row,
    unrelated_table,
)


@pytest.mark.parametrize("path", sorted(TABLES.glob("*.json")), ids=lambda path: path.stem)
def test_an_unrelated_table_has_the_same_coefficients_at_other_places(path) -> None:  # type: ignore[no-untyped-def]
    table = read_surrogate_table(path)
    one, again, other = (unrelated_table(table, [seed, 0]) for seed in (1, 1, 2))
    np.testing.assert_array_equal(np.sort(one.main, axis=None), np.sort(table.main, axis=None))
    np.testing.assert_array_equal(np.sort(one.pairs, axis=None), np.sort(table.pairs, axis=None))
    assert not one.pairs[np.tril_indices(len(one.main))].any(), "pairs of a unit and a later one"
    plans = np.random.default_rng(0).integers(0, 4, (50, table.units))
    np.testing.assert_array_equal(one.scores(plans), again.scores(plans))
    assert abs(np.corrcoef(np.log(one.scores(plans)[:, 0]), np.log(other.scores(plans)[:, 0]))[0, 1]) < 0.9
    np.testing.assert_allclose(reversed_table(table).scores(plans[:, ::-1])[:, 0], table.scores(plans)[:, 0])


def test_ratios_are_those_of_evaluations_and_of_tflops_to_the_cold_searchs_hypervolume() -> None:
    steps = np.arange(1.0, 41.0)
    cold, warm = Run(steps / 40, steps), Run(np.minimum(steps / 20, 1.0), 3 * steps)
    never = Run(np.full(40, 0.7), steps)
    cells, ratios = row("warm", [warm, never], [cold, cold], 36)
    np.testing.assert_allclose(ratios, [[18 / 36, np.inf], [3 * 18 / 36, np.inf]])
    assert cells["evaluations"] == "never (18-never)"
    assert cells["hypervolume at 20"] == f"{(1.0 + 0.7) / 2 / 0.9:.4f}"
    assert row("warm", [warm], [cold], 36)[0]["ratio, worst"] == "0.50"


def test_all_ordered_pairs_of_tables_are_compared() -> None:
    tables = {path.stem: read_surrogate_table(path) for path in TABLES.glob("*.json")}
    names = [name for name, table in tables.items() if table.units == GENES]
    every = [one for data in names for _, _, one in comparisons(names, data)]
    pairs = {(one.data, one.earlier[0]) for one in every if len(one.earlier) == 1 and not one.exact}
    of_tables = {(data, other) for data in names for other in names if data != other}
    assert of_tables <= pairs
    assert pairs - of_tables == {(data, control) for data in names for control in ("reversed", UNRELATED[0])}


def test_the_bound_begins_with_an_earlier_search_and_knows_the_data(tmp_path: Path) -> None:
    names = ("digits-10", "fashion-0-4")
    by_name = {name: read_surrogate_table(TABLES / f"{name}.json") for name in names}
    tables = Tables(by_name, tmp_path, 30)
    exact, cold = (tables.run(one, 0) for one in (Comparison(*names[:1], names[1:], exact=True), Comparison(names[0])))
    assert exact.volumes[-1] > cold.volumes[-1]
    bounds = [one for _, _, one in comparisons(names, names[0]) if one.exact]
    assert [one.earlier for one in bounds] == [("fashion-0-4",)]
