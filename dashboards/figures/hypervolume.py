"""Draw the hypervolume against evaluations and against network FLOPs, with the baselines' as lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stepfront.dashboards.figures.style import DASHES, FRONT, axis, layout, method_mark
from stepfront.dashboards.formatting import flop_unit, method_name
from stepfront.tables.search_tables import SearchTables

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_POINTS = 1000  # a page is no wider in pixels


@dataclass(frozen=True)
class HypervolumeData:
    """Hold the search's hypervolume [points] by evaluations and by network FLOPs, and each method's final one."""

    evaluations: np.ndarray
    spent: np.ndarray  # in `unit`
    unit: str
    hypervolume: np.ndarray
    methods: dict[str, float]  # best first, without the search itself
    floor: float  # where the figure's hypervolume axis starts
    fid_name: str = "FID"


def hypervolume_data(tables: SearchTables) -> HypervolumeData:
    """Take at most 1000 evenly spaced evaluations, the last one among them."""
    progress = tables.progress.sort_values("evaluation")
    kept = progress.iloc[np.unique(np.linspace(0, len(progress) - 1, min(len(progress), MOST_POINTS)).astype(int))]
    gflops = kept.network_gflops.to_numpy(float)
    unit, size = flop_unit(float(np.nanmax(gflops)) if np.isfinite(gflops).any() else 1.0)
    methods = tables.methods[tables.methods.method != "search"].sort_values("hypervolume", ascending=False)
    hypervolume = kept.hypervolume.to_numpy(float)
    # The first tenth of a search rises from zero; drawn in full, it would flatten the rest.
    lowest = min([hypervolume[len(hypervolume) // 10], *methods.hypervolume])
    return HypervolumeData(
        evaluations=kept.evaluation.to_numpy(int),
        spent=gflops / size,
        unit=unit,
        hypervolume=hypervolume,
        methods=dict(zip(methods.method.astype(str), methods.hypervolume.astype(float), strict=True)),
        floor=float(max(0.0, lowest - 0.1 * (hypervolume.max() - lowest))),
        fid_name=tables.fid_name,
    )


def hypervolume_figure(data: HypervolumeData) -> Figure:
    """Draw two panels that share their hypervolume axis."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.04)
    for column, spent in ((1, data.evaluations), (2, data.spent)):
        search = {"name": "search", "legendgroup": "search", "showlegend": column == 1}
        line = {"color": FRONT, "width": 2.5, "shape": "hv"}
        hover = "%{x:.4~g}: %{y:.5~g}<extra>search</extra>"
        trace = go.Scatter(x=spent, y=data.hypervolume, mode="lines", line=line, hovertemplate=hover, **search)
        figure.add_trace(trace, row=1, col=column)
        for index, (method, hypervolume) in enumerate(data.methods.items()):
            name = method_name(method)
            line = {"color": method_mark(method).colour, "width": 2, "dash": DASHES[1 + index % (len(DASHES) - 1)]}
            group = {"name": name, "legendgroup": method, "showlegend": column == 1}
            ends = {"x": [0, spent[-1]], "y": [hypervolume] * 2}
            hover = f"%{{y:.5~g}}<extra>{name}</extra>"
            trace = go.Scatter(**ends, mode="lines", line=line, hovertemplate=hover, **group)
            figure.add_trace(trace, row=1, col=column)
    starts = {"autorangeoptions": {"clipmin": data.floor, "minallowed": data.floor}}
    figure.update_layout(
        layout(420),
        xaxis=axis("evaluations"),
        xaxis2=axis(f"{data.unit} in networks"),
        yaxis=axis(f"hypervolume, {data.fid_name}") | starts,
    )
    return figure
