"""Draw which steps matter: the measured gap per step and width, and the model's FID by stretch and width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stepfront.dashboards.figures.plans import width_colours
from stepfront.dashboards.figures.style import DASHES, axis, layout
from stepfront.tables.search_tables import SearchTables

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_STEPS = 1000


@dataclass(frozen=True)
class WidthLine:
    """Values of one width over the steps; `x` are step numbers or the ends of stretches."""

    width: float
    x: np.ndarray
    y: np.ndarray
    fid_name: str = "FID"


@dataclass(frozen=True)
class ModelCheck:
    """How well the model predicts trials that it has not learnt: explained share of the variance of log FID, and tau.

    Kendall's tau is NaN where search.json has none.
    """

    explained: float
    tau: float
    trials: int


def gap_data(tables: SearchTables) -> list[WidthLine]:
    """Return the gap by step of each width but the widest, which has none; narrowest first."""
    gap = tables.gap
    if gap.empty:
        return []
    kept = np.unique(np.linspace(1, gap["step"].max(), min(int(gap["step"].max()), MOST_STEPS)).astype(int))
    gap = gap[gap["step"].isin(kept) & (gap["width"] < gap["width"].max())].sort_values("step")
    return [
        WidthLine(float(str(width)), part["step"].to_numpy(int), part["gap"].to_numpy(float))
        for width, part in gap.groupby("width")
    ]


def sensitivity_data(tables: SearchTables) -> list[WidthLine]:
    """Return the rise of FID in percent by stretch of each width but the widest; a gap where a stretch is skipped."""
    table = tables.sensitivity
    if table.empty:
        return []
    table = table[table["width"] < table["width"].max()].sort_values("first_step")
    return [_line(float(str(width)), part, tables.fid_name) for width, part in table.groupby("width")]


def _line(width: float, part: pd.DataFrame, fid_name: str) -> WidthLine:
    ends = np.stack([part["first_step"] - 0.5, part["last_step"] + 0.5, part["last_step"] + 0.5], axis=1)
    percent = 100 * (part["factor"].to_numpy(float) - 1)
    values = np.stack([percent, percent, np.full(len(part), np.nan)], axis=1)  # NaN breaks the line between stretches
    return WidthLine(width, ends.ravel().astype(float), values.ravel(), fid_name)


def model_check(tables: SearchTables) -> ModelCheck | None:
    """Compare the model's leave-one-out predictions with FID; None where there are fewer than three."""
    if tables.proxies.empty:
        return None
    wide = tables.proxies.pivot_table(index="trial", columns="proxy", values="score", aggfunc="last")
    if not {"model", "fid"} <= set(wide.columns):
        return None
    both = np.log(wide[["model", "fid"]].dropna().clip(lower=1e-9))
    spread = float(((both["fid"] - both["fid"].mean()) ** 2).sum())
    if len(both) < 3 or not spread:
        return None
    explained = 1 - float(((both["fid"] - both["model"]) ** 2).sum()) / spread
    taus = [entry.get("tau") for entry in tables.facts.get("proxy_tau") or [] if entry.get("lower") == "model"]
    return ModelCheck(explained, float(taus[0]) if taus and taus[0] is not None else float("nan"), len(both))


def gap_figure(lines: list[WidthLine]) -> Figure:
    """Draw a line per width over the steps."""
    figure = _figure(lines, "step %{x}: gap %{y:.3~g}", "lines+markers" if len(lines[0].x) <= 100 else "lines")
    values = np.concatenate([line.y for line in lines])
    figure.update_layout(yaxis=axis("gap: growth of the denoising loss", values))
    return figure


def sensitivity_figure(lines: list[WidthLine]) -> Figure:
    """Draw a flat piece per width and stretch of steps."""
    figure = _figure(lines, "FID %{y:+.1f}%", "lines")
    figure.update_layout(yaxis=axis(f"{lines[0].fid_name} against full width") | {"ticksuffix": "%", "zeroline": True})
    return figure


def _figure(lines: list[WidthLine], hover: str, mode: str) -> Figure:
    import plotly.graph_objects as go

    figure = go.Figure()
    colours = width_colours([line.width for line in lines] + [np.inf])
    for index, (line, colour) in enumerate(zip(lines, colours, strict=False)):
        name = f"{line.width:g}"
        look = {"color": colour, "width": 3 if mode == "lines" else 2, "dash": DASHES[index % len(DASHES)]}
        marks = {"mode": mode, "line": look, "marker": {"size": 6, "color": colour}, "connectgaps": False}
        text = f"width {name}, {hover}<extra></extra>"
        figure.add_trace(go.Scatter(x=line.x, y=line.y, name=name, hovertemplate=text, **marks))
    title = {"title": {"text": "width ", "side": "left"}}
    figure.update_layout(layout(380, hovermode="closest"), xaxis=axis("step of the search's grid (noise → image)"))
    figure.update_layout(legend=title)
    return figure
