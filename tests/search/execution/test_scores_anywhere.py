"""A search on Ray, and the same search in one process."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tests.search.conftest import do_search


def test_equal_seeds_give_equal_scores_whatever_the_workers(searched: Path, fresh: Path, cluster: None) -> None:
    again = pd.read_parquet(do_search(fresh, "workers.count=2") / "trials.parquet")
    first = pd.read_parquet(searched / "trials.parquet")
    scores = dict(zip(first["plan"], first["fid"], strict=True))
    both = [plan for plan in again["plan"] if plan in scores]
    assert len(both) >= 4
    assert [again.set_index("plan").loc[plan, "fid"] for plan in both] == [scores[plan] for plan in both]
