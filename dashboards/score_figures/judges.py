"""Draw how the judges of a search score real images with known harm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stepfront.dashboards.figures.style import DASHES, LINE_COLOURS, axis, layout
from stepfront.tables.search_tables import SearchTables, number

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class JudgeCurves:
    """A judge that is used: per harm, its scores by strength as multiples of its score of real images."""

    name: str
    curves: dict[str, list[float]]


def judges_data(tables: SearchTables) -> list[JudgeCurves]:
    """Return the judges that are used and have been examined."""
    found = []
    for judge in tables.judges:
        floor, scores = number(judge.get("floor")), judge.get("scores")
        if judge.get("used") and floor and isinstance(scores, dict):
            curves = {str(harm): [float(score) / floor for score in given] for harm, given in scores.items()}
            found.append(JudgeCurves(str(judge.get("features")), curves))
    return found


def judges_figure(judges: list[JudgeCurves]) -> Figure:
    """Draw a line per judge and harm: a colour per harm, a dash per judge."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for judge, dash in zip(judges, DASHES, strict=False):
        for (harm, values), colour in zip(judge.curves.items(), LINE_COLOURS, strict=False):
            figure.add_trace(
                go.Scatter(
                    x=["none", *map(str, range(1, len(values) + 1))],
                    y=[1.0, *values],
                    name=f"{judge.name}: {harm}",
                    line={"color": colour, "dash": dash},
                    mode="lines+markers",
                    hovertemplate=f"{judge.name}, {harm} %{{x}}: %{{y:.3~g}} times<extra></extra>",
                )
            )
    every = [value for judge in judges for values in judge.curves.values() for value in [1.0, *values]]
    axes = {
        "xaxis": {"title": {"text": "strength of the harm"}, "type": "category", "automargin": True},
        "yaxis": axis("score / score of real images", every),
    }
    figure.update_layout(layout(480), **axes)
    return figure
