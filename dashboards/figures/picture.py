"""Draw the front as a PNG or SVG picture, for a README or a paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stepfront.dashboards.figures.front import FrontData, extent, front_data, is_a_line
from stepfront.dashboards.figures.style import FRONT, FULL, MUTED, axis_type, method_mark
from stepfront.dashboards.formatting import method_name
from stepfront.files import write_atomically
from stepfront.tables.search_tables import SearchTables

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".png", ".svg")


def save_front_picture(tables: SearchTables, path: Path) -> Path:
    """Draw trials, baselines, full width and front; write the file atomically.

    Raises ValueError for a suffix other than .png and .svg.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"can't draw {path.name}: the suffix should be one of {', '.join(SUFFIXES)}")
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    data = front_data(tables)
    axes = figure.add_subplot()
    _draw(axes, data)
    _dress(axes, data, tables)
    metadata = {"Date": None} if path.suffix == ".svg" else None
    # Without a date and with fixed salt for its names, the same picture is the same file.
    with rc_context({"svg.hashsalt": "stepfront"}):
        write_atomically(path, lambda beside: figure.savefig(beside, format=path.suffix[1:], metadata=metadata))
    return path


def _draw(axes: Axes, data: FrontData) -> None:
    for moment in data.moments:
        axes.scatter(moment.trials.gflops, moment.trials.fid, s=10, color=MUTED, alpha=0.35, linewidths=0, zorder=1)
    for method, rows in data.baselines.items():
        mark = method_mark(method)
        look: dict[str, Any] = {"s": 42, "color": mark.colour, "marker": mark.marker, "zorder": 2}
        axes.scatter(rows.gflops, rows.fid, label=method_name(method), **look)
    if data.full.gflops is not None and data.full.fid is not None:
        axes.scatter([data.full.gflops], [data.full.fid], s=170, color=FULL, marker="*", label="full width", zorder=3)
    if not data.moments:
        return
    front = data.moments[-1].front
    if is_a_line(front):
        axes.step(front.gflops, front.fid, where="post", color=FRONT, linewidth=1.8, zorder=4)
    axes.plot(front.gflops, front.fid, "o", color=FRONT, markersize=5.5, label="front", zorder=5)
    confirmed = front[front.fid_confirmed.notna()]
    if len(confirmed):
        ends = (confirmed.fid_confirmed - confirmed.fid_low, confirmed.fid_high - confirmed.fid_confirmed)
        look = {"fmt": "D", "markersize": 3.5, "color": "#444444", "elinewidth": 1, "capsize": 2.5, "zorder": 6}
        axes.errorbar(confirmed.gflops, confirmed.fid_confirmed, yerr=np.stack(ends), label="confirmed", **look)


def _dress(axes: Axes, data: FrontData, tables: SearchTables) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    gflops, fid = extent(data)
    directions = ((axes.xaxis, axes.set_xscale, gflops), (axes.yaxis, axes.set_yscale, fid))
    for direction, set_scale, values in directions:
        if axis_type(values) == "log":
            set_scale("log")
            direction.set_major_locator(LogLocator(subs=(1, 2, 5)))
            direction.set_major_formatter(StrMethodFormatter("{x:g}"))
            direction.set_minor_formatter(NullFormatter())
    axes.set_xlabel("GFLOPs per image")
    axes.set_ylabel(tables.fid_name)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
