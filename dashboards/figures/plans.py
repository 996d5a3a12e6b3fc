"""Draw the plans of the front as a heat map: a row per front point, a column per step, a colour per width."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from stepfront.dashboards.figures.style import layout
from stepfront.dashboards.formatting import decimal, significant
from stepfront.tables.search_tables import SearchTables

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MARK_NAMES = {"r": "r: reuses features", "u": "u: unguided"}
_MARK = re.compile(r"d\d+|r|u|g[\d.]+")
SKIP_COLOUR = "#EDEDED"
MOST_LABELS = 40
MOST_CELLS = 100_000  # half a megabyte of page
_RUN = re.compile(r"(\d+)x(?:skip|[\d.]+)((?:d\d+)?r?(?:u|g[\d.]+)?)")
MOST_CROSSED_STEPS = 100  # a cross in a narrower cell would be invisible


@dataclass(frozen=True)
class PlansData:
    """Widths [points, steps] in sampling order, 0 = skipped, NaN after the end of a shorter plan; cheapest first."""

    widths: np.ndarray
    levels: list[float]  # the widths that occur, narrowest first, without 0
    labels: list[str]
    trials: list[int]
    fid_name: str = "FID"
    marks: tuple[tuple[int, int, str], ...] = ()
    """Row, step (from 0) and letters of each step with a mark."""


def plans_data(tables: SearchTables) -> PlansData:
    """Return one row per front point, labelled with its cost and FID; beyond 100,000 cells evenly fewer."""
    steps = max((len(widths) for widths in tables.front.widths), default=0)
    most = min(len(tables.front), max(1, MOST_CELLS // max(steps, 1)))
    front = tables.front.iloc[np.linspace(0, len(tables.front) - 1, most).astype(int)]
    plans = [np.asarray(widths, dtype=float) for widths in front.widths]
    widths = np.full((len(plans), steps), np.nan)
    for row, plan in zip(widths, plans, strict=True):
        row[: len(plan)] = plan
    levels = [float(level) for level in np.unique(widths[np.isfinite(widths)]) if level > 0]
    labels = [f"{significant(gflops)} / {decimal(fid)}" for gflops, fid in zip(front.gflops, front.fid, strict=True)]
    marks = tuple(
        (row, step, mark) for row, text in enumerate(front.plan) for step, mark in enumerate(step_marks(text)) if mark
    )
    return PlansData(widths, levels, labels, front.trial.astype(int).tolist(), tables.fid_name, marks)


def step_marks(plan: str) -> list[str]:
    """Return what is behind the width of each step of a plan's text, such as r, u, ru, g3 or d2; nothing for most."""
    runs = [_RUN.fullmatch(word) for word in str(plan).split()]
    return [run[2] for run in runs if run is not None for _ in range(int(run[1]))]


def _mark_name(mark: str) -> str:
    """Return the entry of the legend of one mark."""
    kinds = {"d": "depth", "g": "guidance of scale"}
    return MARK_NAMES.get(mark) or f"{mark}: {kinds[mark[0]]} {mark[1:]}"


def width_colours(levels: list[float]) -> list[str]:
    """Return a colour per width, the wider the darker.

    Viridis keeps its order of lightness for colour-blind readers.  Its palest end is left out, as it is too near to the
    grey of a skipped step.
    """
    from plotly.colors import sample_colorscale

    shades = np.linspace(0.88, 0.1, len(levels)) if len(levels) > 1 else np.array([0.3])
    return list(sample_colorscale("Viridis", shades.tolist()))


def plans_figure(data: PlansData) -> Figure:
    """Draw the heat map, with a legend of the widths' colours."""
    import plotly.graph_objects as go

    rows, steps = data.widths.shape
    values = [0.0, *data.levels]
    colours = [SKIP_COLOUR, *width_colours(data.levels)]
    figure = go.Figure(
        go.Heatmap(
            z=data.widths.astype(np.float32),
            x=np.arange(1, steps + 1),
            y=np.arange(rows),
            zmin=values[0],
            zmax=values[-1],
            colorscale=_bands(values, colours),
            showscale=False,
            xgap=1 if steps <= MOST_CROSSED_STEPS else 0,
            ygap=2 if rows <= MOST_LABELS else 0,
            hovertemplate="step %{x}: width %{z:.4~g}<extra></extra>",
            hoverongaps=False,
        )
    )
    skipped = np.argwhere(data.widths == 0)
    if len(skipped) and steps <= MOST_CROSSED_STEPS:
        figure.add_trace(_crosses(skipped))
    if data.marks and steps <= MOST_CROSSED_STEPS:
        figure.add_trace(_letters(data.marks))
        marks = {one for _, _, mark in data.marks for one in _MARK.findall(mark)}
        for name in sorted(map(_mark_name, marks)):
            figure.add_trace(_legend_entry(name, "rgba(0,0,0,0)"))
    for value, colour in zip(values, colours, strict=True):
        if value or len(skipped):
            figure.add_trace(_legend_entry("skip" if value == 0 else f"{value:g}", colour))
    # The page's script finds the rows of selected trials by `meta`.
    figure.update_layout(layout(170 + min(max(22 * rows, 60), 900)), meta={"trials": data.trials}, **_axes(data))
    return figure


def _bands(values: list[float], colours: list[str]) -> list[tuple[float, str]]:
    """Return a colour scale with a hard edge half-way between neighbouring values."""
    top = values[-1] or 1.0
    edges = [0.0, *((low + high) / 2 / top for low, high in pairwise(values)), 1.0]
    bands = zip(pairwise(edges), colours, strict=True)
    return [(edge, colour) for ends, colour in bands for edge in ends]


def _crosses(skipped: np.ndarray) -> Any:
    import plotly.graph_objects as go

    marker = {"symbol": "x-thin", "size": 7, "line": {"width": 1.2, "color": "#777777"}}
    place = {"x": skipped[:, 1] + 1, "y": skipped[:, 0]}
    return go.Scatter(**place, mode="markers", marker=marker, hoverinfo="skip", showlegend=False)


def _letters(marks: Sequence[tuple[int, int, str]]) -> Any:
    import plotly.graph_objects as go

    rows, steps, letters = zip(*marks, strict=True)
    font = {"size": 9, "color": "#FFFFFF", "shadow": "0 0 2px #000000"}
    place = {"x": [step + 1 for step in steps], "y": list(rows), "text": list(letters)}
    return go.Scatter(**place, mode="text", textfont=font, hoverinfo="skip", showlegend=False)


def _legend_entry(name: str, colour: str) -> Any:
    import plotly.graph_objects as go

    marker = {"symbol": "square", "size": 13, "color": colour, "line": {"width": 1, "color": "#777777"}}
    return go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name=name)


def _axes(data: PlansData) -> dict[str, Any]:
    rows, steps = data.widths.shape
    every = max(1, math.ceil(rows / MOST_LABELS))
    plain = {"showgrid": False, "zeroline": False, "automargin": True}
    return {
        "legend": {"title": {"text": "width ", "side": "left"}, "itemclick": False, "itemdoubleclick": False},
        "xaxis": plain | {"title": {"text": "step (noise → image)"}, "range": [0.5, steps + 0.5]},
        "yaxis": plain
        | {
            "title": {"text": f"GFLOPs / {data.fid_name}"},
            "tickvals": list(range(0, rows, every)),
            "ticktext": data.labels[::every],
            "range": [-0.5, rows - 0.5],
        },
    }
