"""Draw the attainment of several searches: the FID that one, half or all of them reach at each cost.

The empirical attainment surfaces of Grunert da Fonseca, Fonseca and Hall (2001), for two objectives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stepfront.dashboards.figures.style import DASHES, FRONT, MUTED, axis, layout

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def attainment_data(fronts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return one row per cost at which some front has a point: gflops, one, half, all.

    The last three are the best FID at or below the cost that one, at least half and all searches found; NaN where fewer
    found any.
    """
    costs = np.unique(np.concatenate([front.gflops.to_numpy(float) for front in fronts]))
    best = np.array([[_best(front, cost) for cost in costs] for front in fronts])
    ordered = np.sort(best, axis=0)  # NaN last
    half = (len(fronts) + 1) // 2
    return pd.DataFrame({"gflops": costs, "one": ordered[0], "half": ordered[half - 1], "all": ordered[-1]})


def _best(front: pd.DataFrame, cost: float) -> float:
    affordable = front.fid.to_numpy(float)[front.gflops.to_numpy(float) <= cost]
    return float(affordable.min()) if len(affordable) else np.nan


def attainment_figure(data: pd.DataFrame, searches: int, fid_name: str = "FID") -> Figure:
    """Draw a step line per share of the searches; of two searches, half is one."""
    import plotly.graph_objects as go

    names = {"one": "at least one search", "half": "at least half of them", "all": "every search"}
    figure = go.Figure()
    for (key, name), dash in zip(names.items(), DASHES, strict=False):
        if key == "half" and searches < 3:
            continue
        line = {"color": MUTED if key == "one" else FRONT, "width": 2, "shape": "hv", "dash": dash}
        hover = "%{x:.4~g} GFLOPs: FID %{y:.2f}<extra>" + name + "</extra>"
        figure.add_trace(
            go.Scatter(x=data.gflops, y=data[key], mode="lines", line=line, name=name, hovertemplate=hover)
        )
    values = data[["one", "half", "all"]].to_numpy(float)
    figure.update_layout(
        layout(460, hovermode="closest"),
        xaxis=axis("GFLOPs per image", data.gflops.to_numpy(float)),
        yaxis=axis(fid_name, values[np.isfinite(values)]),
    )
    return figure
