"""The ledger's views: what a table records of a study can be read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.tracking import made_up_search
from stepfront.search.study import views
from stepfront.search.study.views import recorded_trials, trials_table
from stepfront.tables.schema import TRIAL_COLUMNS
from stepfront.trainers.diffusion.plan import Plan
from tests.search.study.test_ledger import make_ledger, run

PLAN = Plan((999.0, 0.0), (0.5, 1.0), "ddim")


def test_a_table_older_than_its_newest_columns_tells_what_it_knows() -> None:
    table = made_up_search(5).trials
    newest = ["sampling_seconds", "features_seconds", "distance_seconds", "prefix_states", "prefix_mb", "device"]
    now, older = recorded_trials(table), recorded_trials(table.drop(columns=newest))
    assert set(now[3][1]) - set(older[3][1]) == set(newest)
    assert {key: value for key, value in now[3][1].items() if key not in newest} == older[3][1]
    assert now[3][0] == older[3][0]


@pytest.mark.parametrize("columns", [TRIAL_COLUMNS[:-1], (*TRIAL_COLUMNS, "prompt")])
def test_a_column_that_rows_or_schema_lack_is_an_error(
    columns: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = run(make_ledger("sqlite", tmp_path), most=2)
    assert list(trials_table(ledger, lambda genome: PLAN).columns) == list(TRIAL_COLUMNS)
    monkeypatch.setattr(views, "TRIAL_COLUMNS", columns)
    (differing,) = set(columns) ^ set(TRIAL_COLUMNS)
    with pytest.raises(ValueError, match=rf"rows and schema of trials\.parquet differ in: {differing}$"):
        trials_table(ledger, lambda genome: PLAN)
