"""Draw the main figure: FID against GFLOPs, with every trial, the front, its growth and the baselines."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stepfront.dashboards.figures.style import FRONT, FULL, MUTED, axis, axis_type, layout, method_mark
from stepfront.dashboards.formatting import decimal, method_name, short_plan, significant
from stepfront.tables.search_tables import FullWidth, SearchTables, rows, scored

if TYPE_CHECKING:
    from plotly.graph_objects import Figure, Scatter

MOST_TRIALS = 2000  # more points only darken the cloud, and the page must stay small
MOST_MOMENTS = 30
PLAN_LENGTH = 90


@dataclass(frozen=True)
class Moment:
    """Hold the search after a generation: the trials since the moment before, and the front by then."""

    generation: int
    trials: pd.DataFrame
    front: pd.DataFrame


@dataclass(frozen=True)
class FrontData:
    """Hold everything the figure shows.  The last moment's front is the one of front.parquet."""

    moments: list[Moment]
    baselines: dict[str, pd.DataFrame]  # by method
    full: FullWidth
    dominated: int  # how many dominated trials there are
    drawn: int  # how many of them are drawn
    fid_name: str = "FID"


def front_data(tables: SearchTables, most_trials: int = MOST_TRIALS) -> FrontData:
    """Split the trials into at most 30 moments, and thin the dominated ones evenly to `most_trials`."""
    complete = tables.complete.sort_values("trial")
    dominated = complete[~complete.trial.isin(tables.front.trial)]
    kept = dominated
    if len(dominated) > most_trials:
        kept = dominated.iloc[np.unique(np.linspace(0, len(dominated) - 1, most_trials).astype(int))]
    spans = np.array_split(np.unique(complete.generation), min(MOST_MOMENTS, complete.generation.nunique()) or 1)
    moments = []
    for span in filter(len, spans):
        until = complete[complete.generation <= span[-1]]
        moments.append(Moment(int(span[-1]), kept[kept.generation.isin(span)], non_dominated(until)))
    if moments:
        moments[-1] = Moment(moments[-1].generation, moments[-1].trials, tables.front)
    baselines = scored(tables.baselines)
    by_method = {str(method): points for method, points in baselines.groupby("method", sort=False)}
    return FrontData(moments, by_method, tables.full, len(dominated), len(kept), tables.fid_name)


def non_dominated(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the feasible trials that no other such one equals or beats in both gflops and fid, cheapest first."""
    if "violation" in trials:
        trials = trials[trials.violation <= 0]
    ordered = trials.sort_values(["gflops", "fid"])
    best_before = ordered.fid.cummin().shift(fill_value=np.inf)
    return ordered[ordered.fid < best_before]


def is_a_line(front: pd.DataFrame) -> bool:
    """Return whether FID falls with cost, as on a front of these two alone.

    With three objectives some points are on the front for another score, and lie above any line.
    """
    return bool((front.sort_values("gflops").fid.diff().dropna() <= 0).all())


def front_figure(data: FrontData) -> Figure:
    """Draw the figure, with a slider over the generations when there are several."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for index, moment in enumerate(data.moments):
        figure.add_trace(_trials(moment.trials, first=index == 0))
    for method, points in data.baselines.items():
        figure.add_trace(_baseline(method, points))
    if data.full.gflops is not None and data.full.fid is not None:
        figure.add_trace(_full(data.full.gflops, data.full.fid))
    for index, moment in enumerate(data.moments):
        figure.add_trace(_front(moment.front, final=index == len(data.moments) - 1))
    if data.moments:
        figure.add_traces([_confirmed(data.moments[-1].front), _labels(data.moments[-1].front)])
    gflops, fid = extent(data)
    limit = shown_limit(data)
    ends = [data.moments[-1].front[["fid_low", "fid_high"]].to_numpy(float).ravel()] if data.moments else []
    fid = np.concatenate([fid[~(fid > limit)], *ends])
    figure.update_layout(
        layout(620, hovermode="closest", margin={"l": 60, "r": 20, "t": 80, "b": 60}),
        xaxis=axis("GFLOPs per image", gflops),
        yaxis=axis(data.fid_name, fid) | _shown_range(fid, limit),
        sliders=_sliders(data, len(figure.data)) if len(data.moments) > 1 else [],
    )
    return figure


def shown_limit(data: FrontData) -> float:
    """Return the FID up to which the figure is drawn at first; infinity where no outlier would flatten the rest.

    The limit is the front's worst point, full width, or three times the third quartile of all points, whichever is the
    largest.  A double click shows everything.
    """
    fid = extent(data)[1]
    fid = fid[np.isfinite(fid)]
    if not len(fid) or not data.moments:
        return math.inf
    front = data.moments[-1].front
    worst = [float(value) for value in (front.fid.max(), front.fid_high.max(), data.full.fid or np.nan)]
    limit = float(np.nanmax([*worst, 3 * np.quantile(fid, 0.75)]))
    return limit if fid.max() > limit else math.inf


def beyond(data: FrontData) -> int:
    """Return how many points lie above the figure as it is drawn at first."""
    return int((extent(data)[1] > shown_limit(data)).sum())


def _shown_range(fid: np.ndarray, limit: float) -> dict[str, Any]:
    """Return the vertical range where outliers are left out of it."""
    if not math.isfinite(limit):
        return {}
    low, high = float(np.nanmin(fid)), float(np.nanmax(fid))
    if axis_type(fid) == "log":
        margin = 0.05 * (math.log10(high) - math.log10(low))
        return {"range": [math.log10(low) - margin, math.log10(high) + margin]}
    return {"range": [low - 0.05 * (high - low), high + 0.05 * (high - low)]}


def extent(data: FrontData) -> tuple[np.ndarray, np.ndarray]:
    """Return the gflops and the fid of everything in the figure, which decide the scale of its axes."""
    frames = [part for moment in data.moments for part in (moment.trials, moment.front)] + list(data.baselines.values())
    points = [frame[["gflops", "fid"]].to_numpy(float) for frame in frames] or [np.empty((0, 2))]
    both = np.concatenate([*points, [[data.full.gflops or np.nan, data.full.fid or np.nan]]])
    return both[:, 0], both[:, 1]


def _points(frame: pd.DataFrame, **settings: Any) -> Scatter:
    import plotly.graph_objects as go

    # float32 halves the page; its seven digits are more than any hover shows.
    x, y = frame.gflops.to_numpy(np.float32), frame.fid.to_numpy(np.float32)
    template = "%{text}<br>%{x:.4~g} GFLOPs, FID %{y:.2f}<extra></extra>"
    return go.Scatter(x=x, y=y, mode="markers", hovertemplate=template, **settings)


def _hover(row: Any, head: str) -> str:
    latency = "" if pd.isna(row.latency_ms) else f", {significant(row.latency_ms)} ms"
    # plotly reads a few tags in hover texts.
    return f"{escape(head)}{latency}<br>{escape(short_plan(row.plan, PLAN_LENGTH))}"


def _trial_hover(frame: pd.DataFrame) -> list[str]:
    return [_hover(row, f"trial {row.trial}, {row.origin}") for row in rows(frame)]


def _trials(frame: pd.DataFrame, first: bool) -> Scatter:
    marker = {"color": MUTED, "size": 6, "opacity": 0.45}
    group = {"name": "other trials", "legendgroup": "trials", "showlegend": first}
    return _points(frame, marker=marker, text=_trial_hover(frame), customdata=frame.trial.tolist(), **group)


def _baseline(method: str, frame: pd.DataFrame) -> Scatter:
    mark = method_mark(method)
    marker = {"color": mark.colour, "symbol": mark.symbol, "size": 10, "line": {"width": 1, "color": mark.colour}}
    name = f"baseline: {method_name(method)}"
    return _points(frame, marker=marker, name=name, text=[_hover(row, name) for row in rows(frame)])


def _full(gflops: float, fid: float) -> Scatter:
    import plotly.graph_objects as go

    text = f"full width<br>{significant(gflops)} GFLOPs, FID {decimal(fid)}"
    marker = {"symbol": "star", "size": 17, "color": FULL}
    hover = {"text": [text], "hovertemplate": "%{text}<extra></extra>"}
    return go.Scatter(x=[gflops], y=[fid], mode="markers", marker=marker, name="full width", **hover)


def _front(frame: pd.DataFrame, final: bool) -> Scatter:
    # Earlier fronts repeat most points; their plans would make up most of the page.
    hover = _trial_hover(frame) if final else [f"trial {trial}" for trial in frame.trial]
    marker = {"color": FRONT, "size": 9}
    trace = _points(frame, name="front", marker=marker, text=hover, visible=final, customdata=frame.trial.tolist())
    if not is_a_line(frame):
        return trace
    # "hv": at each cost, the line shows the best FID at or below it.
    return trace.update(mode="lines+markers", line={"color": FRONT, "width": 2, "shape": "hv"})


def _labels(front: pd.DataFrame) -> Scatter:
    import plotly.graph_objects as go

    named = front[front.label != ""]
    # Below and to the left of a front lies the empty half of the plot, but left of the cheapest point stands the axis.
    sides = ["top right" if gflops == front.gflops.min() else "bottom left" for gflops in named.gflops]
    place = {"textposition": sides, "cliponaxis": False, "hoverinfo": "skip", "showlegend": False}
    text = [f" {escape(label.replace(',', ', '))} " for label in named.label]
    return go.Scatter(x=named.gflops, y=named.fid, mode="text", text=text, textfont={"size": 12}, **place)


def _confirmed(front: pd.DataFrame) -> Scatter:
    import plotly.graph_objects as go

    confirmed = front[front.fid_confirmed.notna()]
    bars = {"array": confirmed.fid_high - confirmed.fid_confirmed}
    bars["arrayminus"] = confirmed.fid_confirmed - confirmed.fid_low
    still = confirmed.belongs.to_numpy(bool)
    symbols = np.where(still, "diamond", "diamond-open").tolist()
    text = [
        f"trial {row.trial} on held-out noise seeds<br>FID {decimal(row.fid_confirmed)}, "
        f"{decimal(row.fid_low)} to {decimal(row.fid_high)}{_beside(row)}<br>"
        f"{'still' if row.belongs else 'no longer'} on the front"
        for row in rows(confirmed)
    ]
    return go.Scatter(
        x=confirmed.gflops,
        y=confirmed.fid_confirmed,
        error_y={"type": "data", "symmetric": False, "color": MUTED, "thickness": 1.5, "width": 4, **bars},
        mode="markers",
        marker={"color": MUTED, "symbol": symbols, "size": 5, "line": {"width": 1, "color": MUTED}},
        name="confirmed on held-out noise seeds",
        customdata=confirmed.trial.tolist(),
        showlegend=bool(len(confirmed)),
        text=text,
        hovertemplate="%{text}<extra></extra>",
    )


def _beside(row: Any) -> str:
    """Return the scores beside FID, where the point has them."""
    if pd.isna(row.kid):
        return ""
    ends = f"{significant(row.kid_low)} to {significant(row.kid_high)}"
    return f"<br>KID {significant(row.kid)}, {ends}; precision {decimal(row.precision)}, recall {decimal(row.recall)}"


def _sliders(data: FrontData, traces: int) -> list[dict[str, Any]]:
    """Make one step per moment: its front and the trials up to it; the confirmation only at the end."""
    last = len(data.moments) - 1
    has_full = data.full.gflops is not None and data.full.fid is not None
    before_front = len(data.moments) + len(data.baselines) + has_full
    after_front = traces - before_front - len(data.moments)
    steps = []
    for index, moment in enumerate(data.moments):
        visible = [shown <= index for shown in range(len(data.moments))]
        visible += [True] * (before_front - len(data.moments))
        visible += [shown == index for shown in range(len(data.moments))] + [index == last] * after_front
        steps.append({"method": "restyle", "label": str(moment.generation), "args": [{"visible": visible}]})
    current = {"prefix": "after generation ", "xanchor": "left"}
    return [{"active": last, "steps": steps, "currentvalue": current, "pad": {"t": 55}, "bgcolor": MUTED}]
