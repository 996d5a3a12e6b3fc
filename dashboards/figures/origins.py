"""Draw where the trials came from, and which origins led to the front."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stepfront.dashboards.figures.style import FRONT, MUTED, layout
from stepfront.tables.search_tables import SearchTables

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class OriginsData:
    """Hold the trials per origin and those of them on the front; most trials first."""

    origins: list[str]
    made: list[int]
    on_front: list[int]
    fid_name: str = "FID"


def origins_data(tables: SearchTables) -> OriginsData:
    """Count every trial; failed ones count too, as they took time."""
    made = tables.trials.origin.value_counts()
    on_front = tables.front.origin.value_counts()
    origins = sorted((str(origin) for origin in made.index), key=lambda origin: (-int(made[origin]), origin))
    fronts = [int(on_front.get(origin, 0)) for origin in origins]
    return OriginsData(origins, [int(made[origin]) for origin in origins], fronts, tables.fid_name)


def origins_figure(data: OriginsData) -> Figure:
    """Draw two panels with separate scales, as a front is a few points out of many trials."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    titles = ("trials", f"on the front,<br>{data.fid_name}")  # short: on a phone a panel has 110 pixels
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.05, subplot_titles=titles)
    for column, (counts, colour) in enumerate(((data.made, MUTED), (data.on_front, FRONT)), start=1):
        # Bars are drawn from the bottom up; the origin with most trials comes on top.
        bars = {"x": counts[::-1], "y": data.origins[::-1], "text": counts[::-1]}
        look = {"orientation": "h", "marker": {"color": colour}, "textposition": "outside", "cliponaxis": False}
        figure.add_trace(go.Bar(**bars, **look, hoverinfo="skip", showlegend=False), row=1, col=column)
        figure.update_xaxes(range=[0, 1.12 * max([*counts, 1])], showgrid=False, zeroline=False, col=column)
    figure.update_annotations(font={"size": 13})
    figure.update_xaxes(showticklabels=False)
    figure.update_yaxes(automargin=True, type="category", showgrid=False, zeroline=False)
    figure.update_layout(layout(95 + 32 * max(len(data.origins), 2), margin={"l": 60, "r": 20, "t": 55, "b": 15}))
    return figure
