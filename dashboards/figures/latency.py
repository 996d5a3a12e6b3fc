"""Draw latency against GFLOPs, both relative to full width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stepfront.dashboards.figures.style import FRONT, FULL, MUTED, axis, layout, method_mark
from stepfront.dashboards.formatting import method_name
from stepfront.tables.search_tables import SearchTables, scored

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_TRIALS = 1000


@dataclass(frozen=True)
class LatencyData:
    """Hold groups of points [points, 2]: share of full width's GFLOPs, share of its latency."""

    trials: np.ndarray
    front: np.ndarray
    baselines: dict[str, np.ndarray]
    fid_name: str = "FID"

    @property
    def empty(self) -> bool:
        """Whether latency was measured nowhere, or not at full width."""
        return not any(map(len, (self.trials, self.front, *self.baselines.values())))


def latency_data(tables: SearchTables) -> LatencyData:
    """Return the points relative to full width; none where search.json lacks the cost of full width."""
    gflops, latency = tables.full.gflops, tables.full.latency_ms

    def shares(frame: pd.DataFrame) -> np.ndarray:
        if not gflops or not latency or frame.empty:
            return np.empty((0, 2))
        measured = frame[frame.latency_ms.notna()]
        return measured[["gflops", "latency_ms"]].to_numpy(float) / [gflops, latency]

    complete = tables.complete
    others = shares(complete[~complete.trial.isin(tables.front.trial)])
    baselines = scored(tables.baselines)
    by_method = {str(method): shares(rows) for method, rows in baselines.groupby("method", sort=False)}
    measured = {method: points for method, points in by_method.items() if len(points)}
    return LatencyData(others[-MOST_TRIALS:], shares(tables.front), measured, tables.fid_name)


def latency_figure(data: LatencyData) -> Figure:
    """Draw the points; those above the diagonal save less time than FLOPs."""
    import plotly.graph_objects as go

    groups = [("other trials", data.trials, {"color": MUTED, "size": 6, "opacity": 0.45})]
    for method, points in data.baselines.items():
        mark = method_mark(method)
        marker = {"color": mark.colour, "symbol": mark.symbol, "size": 9}
        groups.append((f"baseline: {method_name(method)}", points, marker))
    groups.append((f"front, {data.fid_name}", data.front, {"color": FRONT, "size": 9}))
    most = max([1.0, *(float(points.max()) for _, points, _ in groups if len(points))])
    figure = go.Figure(
        go.Scatter(
            x=[0, most],
            y=[0, most],
            mode="lines",
            line={"color": FULL, "dash": "dash"},
            name="time follows FLOPs",
            hoverinfo="skip",
        )
    )
    for name, points, marker in groups:
        if len(points):
            hover = f"%{{x:.0%}} of the FLOPs, %{{y:.0%}} of the time<extra>{name}</extra>"
            shown = {"x": points[:, 0], "y": points[:, 1], "mode": "markers", "marker": marker}
            figure.add_trace(go.Scatter(**shown, name=name, hovertemplate=hover))
    share = {"tickformat": ".0%", "rangemode": "tozero"}
    figure.update_layout(
        layout(480),
        xaxis=axis("GFLOPs relative to full width") | share,
        yaxis=axis("latency relative to full width") | share,
    )
    return figure
