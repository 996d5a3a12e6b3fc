"""Draw how much of the hypervolume each method holds as a table."""

from __future__ import annotations

import pandas as pd

from stepfront.dashboards.formatting import percent
from stepfront.dashboards.terminal.fitted_table import FittedTable, TextColumn


def methods_table(scored: pd.DataFrame) -> FittedTable:
    """Return the table, one line per method.

    The share is of the hypervolume of all methods together.
    """
    return FittedTable(
        [
            TextColumn("method", [str(name) for name in scored["method"]]),
            TextColumn("evaluations", [f"{count:,}" for count in scored["evaluations"]], right=True),
            TextColumn("share of hypervolume", [percent(share, 1) for share in scored["share"]], right=True),
        ],
        caption="Share of the hypervolume that all methods hold together.",
    )
