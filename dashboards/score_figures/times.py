"""Draw the times of learnt samplers against the step, with hand grids of as many steps beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stepfront.dashboards.figures.style import DASHES, LINE_COLOURS, MUTED, axis, layout
from stepfront.dashboards.formatting import short_plan
from stepfront.tables.search_tables import SearchTables

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_LINES = 6
PLAN_LENGTH = 30


@dataclass(frozen=True)
class LearntTimes:
    """The samplers of one number of steps: times by name, and what the network is told where that differs."""

    steps: int
    learnt: dict[str, list[float]]
    told: dict[str, list[float]]
    hand: dict[str, list[float]]


def times_data(tables: SearchTables) -> list[LearntTimes]:
    """Return the learnt samplers by number of steps, fewest first; of more than six, those of least FID."""
    by_steps: dict[int, list[dict[str, Any]]] = {}
    for one in learnt_records(tables):
        by_steps.setdefault(int(one["steps"]), []).append(one)
    grids = tables.facts.get("hand_grids") or {}
    found = []
    for steps, records in sorted(by_steps.items()):
        best = sorted(records, key=lambda one: float(one["fid"]))[:MOST_LINES]
        learnt = {_name(one): list(one["times"]) for one in best}
        told = {_name(one): list(one["network_times"]) for one in best if one["network_times"] != one["times"]}
        found.append(LearntTimes(steps, learnt, told, dict(grids.get(str(steps)) or {})))
    return found


def learnt_records(tables: SearchTables) -> list[dict[str, Any]]:
    """Return the records of learning in search.json whose sampler is learnt, not a closed form."""
    records = tables.facts.get("learning") or []
    return [one for one in records if isinstance(one, dict) and one.get("chosen") == "learnt"]


def _name(one: dict[str, Any]) -> str:
    return f"{short_plan(str(one['plan']), PLAN_LENGTH)} ({str(one['digest'])[:6]})"


def times_figure(data: LearntTimes) -> Figure:
    """Draw a line per sampler: learnt ones solid, what the network is told as crosses, hand grids broken and grey."""
    import plotly.graph_objects as go

    steps = list(range(1, data.steps + 1))
    figure = go.Figure()
    for (grid, times), dash in zip(data.hand.items(), DASHES[1:], strict=False):
        line = {"color": MUTED, "dash": dash, "width": 1.5}
        hover = f"{grid} grid, step %{{x}}: %{{y:.4~g}}<extra></extra>"
        figure.add_trace(go.Scatter(x=steps, y=times, name=f"{grid} grid", line=line, hovertemplate=hover))
    for (name, times), colour in zip(data.learnt.items(), LINE_COLOURS, strict=False):
        hover = f"{name}, step %{{x}}: %{{y:.4~g}}<extra></extra>"
        line = {"color": colour, "width": 2.5}
        figure.add_trace(go.Scatter(x=steps, y=times, name=name, line=line, mode="lines+markers", hovertemplate=hover))
        if name in data.told:
            told = f"{name}, the network is told %{{y:.4~g}} at step %{{x}}<extra></extra>"
            marker = {"symbol": "x-thin", "size": 9, "line": {"width": 1.5, "color": colour}}
            figure.add_trace(
                go.Scatter(
                    x=steps, y=data.told[name], mode="markers", marker=marker, hovertemplate=told, showlegend=False
                )
            )
    shared = layout(420, title={"text": f"{data.steps} steps", "font": {"size": 14}, "y": 0.98})
    shared["legend"] = {"orientation": "h", "yanchor": "top", "y": -0.32, "x": 0}
    shared["margin"] = {"l": 60, "r": 20, "t": 40, "b": 110}
    figure.update_layout(shared, xaxis=axis("step (noise → image)"), yaxis=axis("training time"))
    figure.update_xaxes(dtick=1 if data.steps <= 10 else 5)
    return figure
