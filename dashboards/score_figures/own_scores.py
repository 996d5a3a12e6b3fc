"""Draw a user's own scores against FLOPs: a panel per score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stepfront.dashboards.figures.style import FRONT, MUTED, axis, layout
from stepfront.tables.schema import confirmed_columns
from stepfront.tables.search_tables import SearchTables

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_TRIALS = 1000


@dataclass(frozen=True)
class OwnScore:
    """A score with `trials` and `front`: tables of gflops and value, the front's with low and high where confirmed."""

    name: str
    higher: bool
    trials: pd.DataFrame
    front: pd.DataFrame


def own_scores_data(tables: SearchTables) -> list[OwnScore]:
    """Return the scores that have values, confirmed ones where there are some."""
    found = []
    for score in tables.own_scores:
        name = str(score["name"])
        mean, low, high = confirmed_columns(name)
        front = tables.front
        if mean in front and front[mean].notna().any():
            points = front[["trial", "gflops"]].assign(value=front[mean], low=front[low], high=front[high])
        elif name in front:
            points = front[["trial", "gflops"]].assign(value=front[name], low=np.nan, high=np.nan)
        else:
            continue
        trials = tables.complete.tail(MOST_TRIALS)
        others = trials[["trial", "gflops"]].assign(value=trials[name]) if name in trials else points.head(0)
        found.append(OwnScore(name, score.get("goal") == "higher", others, points.dropna(subset=["value"])))
    return found


def own_score_figure(score: OwnScore) -> Figure:
    """Draw one score: other trials, and the front with its intervals."""
    import plotly.graph_objects as go

    hover = f"trial %{{text}}<br>%{{x:.4~g}} GFLOPs, {score.name} %{{y:.4~g}}<extra></extra>"
    shown: dict[str, Any] = {"mode": "markers", "hovertemplate": hover, "showlegend": False}
    others, front = score.trials, score.front
    bars = {"array": front.high - front.value, "arrayminus": front.value - front.low}
    figure = go.Figure()
    muted = {"size": 6, "opacity": 0.45, "color": MUTED}
    for points, marker in ((others, muted), (front, {"size": 9, "color": FRONT})):
        place = {"x": points.gflops, "y": points.value, "text": points.trial, "customdata": points.trial.tolist()}
        figure.add_trace(go.Scatter(**place, marker=marker, **shown))
    figure.data[1].error_y = {"type": "data", "symmetric": False, "color": MUTED, **bars}
    better = "higher" if score.higher else "lower"
    figure.update_layout(
        layout(340, margin={"l": 60, "r": 20, "t": 10, "b": 50}),
        xaxis=axis("GFLOPs per image", front.gflops.to_numpy(float)),
        yaxis=axis(f"{score.name} ({better} is better)"),
    )
    return figure
