"""Several searches in one figure: the front of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dashboards.figures.style import DASHES, LINE_COLOURS, axis, layout
from dashboards.tables import SearchTables, rows
from dashboards.wording import decimal, short_plan, significant

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PLAN_LENGTH = 90


def comparison_data(searches: Sequence[SearchTables]) -> dict[str, pd.DataFrame]:
    """The front of each search under a name of its own."""
    return dict(zip(search_names(searches), (tables.front for tables in searches), strict=True))


def search_names(searches: Sequence[SearchTables]) -> list[str]:
    """The searches' names; those that several share are told apart by their number in the order given."""
    times = Counter(tables.name for tables in searches)
    return [
        tables.name if times[tables.name] == 1 else f"{tables.name} ({place})"
        for place, tables in enumerate(searches, start=1)
    ]


def comparison_figure(fronts: dict[str, pd.DataFrame]) -> Figure:
    """A step line a search."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for index, (name, front) in enumerate(fronts.items()):
        colour = LINE_COLOURS[index % len(LINE_COLOURS)]
        dash = DASHES[index % len(DASHES)]
        figure.add_trace(
            go.Scatter(
                x=front.gflops,
                y=front.fid,
                mode="lines+markers",
                line={"color": colour, "width": 2, "shape": "hv", "dash": dash},
                marker={"color": colour, "size": 8},
                name=name,
                text=[_hover(row) for row in rows(front)],
                hovertemplate="%{text}<extra>" + escape(name) + "</extra>",
            )
        )
    points = np.concatenate([front[["gflops", "fid"]].to_numpy(float) for front in fronts.values()])
    figure.update_layout(
        layout(560, hovermode="closest"),
        xaxis=axis("GFLOPs per image", points[:, 0]),
        yaxis=axis("FID", points[:, 1]),
    )
    return figure


def _hover(row: Any) -> str:
    costs = f"{significant(row.gflops)} GFLOPs, FID {decimal(row.fid)}"
    origin, plan = escape(row.origin), escape(short_plan(row.plan, PLAN_LENGTH))
    return f"trial {row.trial}, {origin}<br>{costs}<br>{plan}"
