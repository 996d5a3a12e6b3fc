"""Check the correlations of proxies with FID on a table in closed form."""

from __future__ import annotations

import pandas as pd

from stepfront.search.scoring.proxy_agreement import correlations


def test_correlations_of_a_table() -> None:
    rows = [(t, proxy, float(v)) for t in range(12) for proxy, v in (("gap", t), ("fid", t), ("paired", -t))]
    found = correlations(pd.DataFrame(rows, columns=["trial", "proxy", "score"]))
    assert found == [
        {"lower": "gap", "upper": "fid", "tau": 1.0, "n": 12},
        {"lower": "paired", "upper": "fid", "tau": -1.0, "n": 12},
    ]
    few = pd.DataFrame([row for row in rows if row[0] < 11], columns=["trial", "proxy", "score"])
    assert correlations(few) == []
