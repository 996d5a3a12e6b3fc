"""The ledger's views: what a table records of a study can be read back."""

from __future__ import annotations

from benchmarks.tracking import made_up_search
from stepfront.search.study.views import recorded_trials


def test_a_table_older_than_its_newest_columns_tells_what_it_knows() -> None:
    table = made_up_search(5).trials
    newest = ["sampling_seconds", "features_seconds", "distance_seconds", "prefix_states", "prefix_mb", "device"]
    now, older = recorded_trials(table), recorded_trials(table.drop(columns=newest))
    assert set(now[3][1]) - set(older[3][1]) == set(newest)
    assert {key: value for key, value in now[3][1].items() if key not in newest} == older[3][1]
    assert now[3][0] == older[3][0]
