"""Draw the fronts of several searches in one figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stepfront.dashboards.figures.front import is_a_line
from stepfront.dashboards.figures.style import DASHES, LINE_COLOURS, axis, layout
from stepfront.dashboards.formatting import decimal, percent, short_plan, significant
from stepfront.tables.search_tables import SearchTables, rows

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PLAN_LENGTH = 90


def comparison_data(searches: Sequence[SearchTables]) -> dict[str, pd.DataFrame]:
    """Return the front of each search under its name."""
    return dict(zip(search_names(searches), (tables.front for tables in searches), strict=True))


def search_names(searches: Sequence[SearchTables]) -> list[str]:
    """Return the searches' names: their runs' paths, without the folders that all of them share.

    A search that was given twice is followed by its place in the order given.
    """
    paths = [list(run_path(tables).parts) for tables in searches]
    while min(map(len, paths), default=0) > 1 and len({parts[0] for parts in paths}) == 1:
        paths = [parts[1:] for parts in paths]
    names = [str(PurePath(*parts)) for parts in paths]
    times = Counter(names)
    return [name if times[name] == 1 else f"{name} ({place})" for place, name in enumerate(names, start=1)]


def run_path(tables: SearchTables) -> Path:
    """Return the folder of the search's run, relative to the current folder where it lies below it."""
    place = tables.directory.absolute()
    run = place.parent if place.name == "search" else place
    return run.relative_to(Path.cwd()) if run.is_relative_to(Path.cwd()) and run != Path.cwd() else run


def relative_data(searches: Sequence[SearchTables]) -> dict[str, pd.DataFrame]:
    """Return the fronts relative to their own search's full width, so that searches on different data can be compared.

    Searches whose full width has no score are left out.
    """
    named = zip(search_names(searches), searches, strict=True)
    return {
        name: tables.front.assign(gflops=tables.front.gflops / gflops, fid=tables.front.fid / fid)
        for name, tables in named
        if (gflops := tables.full.gflops) and (fid := tables.full.fid)
    }


def hypervolume_shares(fronts: Sequence[pd.DataFrame]) -> list[float]:
    """Return the hypervolume of each front as a share of that of all fronts together.

    The reference point is 5 % beyond the largest cost and the worst FID of all.
    """
    points = [front[["gflops", "fid"]].to_numpy(float) for front in fronts]
    reference = 1.05 * np.concatenate(points).max(axis=0)
    whole = _area(np.concatenate(points), reference)
    if not whole:  # every point has the same FID of zero, so no front has less than another
        return [1.0] * len(points)
    return [_area(own, reference) / whole for own in points]


def _area(points: np.ndarray, reference: np.ndarray) -> float:
    """Return the area that points dominate below the reference: a strip per cost, down to the best FID."""
    ordered = points[np.argsort(points[:, 0])]
    costs = np.append(ordered[:, 0], reference[0])
    return float((np.diff(costs) * (reference[1] - np.minimum.accumulate(ordered[:, 1]))).sum())


def comparison_figure(fronts: dict[str, pd.DataFrame], relative: bool = False, fid_name: str = "FID") -> Figure:
    """Draw a step line per search; `relative` for fronts relative to full width."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for index, (name, front) in enumerate(fronts.items()):
        colour = LINE_COLOURS[index % len(LINE_COLOURS)]
        dash = DASHES[index % len(DASHES)]
        figure.add_trace(
            go.Scatter(
                x=front.gflops,
                y=front.fid,
                mode="lines+markers" if is_a_line(front) else "markers",
                line={"color": colour, "width": 2, "shape": "hv", "dash": dash},
                marker={"color": colour, "size": 8},
                name=name,
                text=[_hover(row, relative) for row in rows(front)],
                hovertemplate="%{text}<extra>" + escape(name) + "</extra>",
            )
        )
    points = np.concatenate([front[["gflops", "fid"]].to_numpy(float) for front in fronts.values()])
    figure.update_layout(
        layout(560, hovermode="closest"),
        xaxis=axis("GFLOPs relative to full width" if relative else "GFLOPs per image", points[:, 0]),
        yaxis=axis(f"{fid_name} relative to full width" if relative else fid_name, points[:, 1]),
    )
    return figure


def _hover(row: Any, relative: bool) -> str:
    costs = f"{significant(row.gflops)} GFLOPs, FID {decimal(row.fid)}"
    if relative:
        costs = f"{percent(row.gflops)} of full width's GFLOPs, {decimal(row.fid)} times its FID"
    origin, plan = escape(row.origin), escape(short_plan(row.plan, PLAN_LENGTH))
    return f"trial {row.trial}, {origin}<br>{costs}<br>{plan}"
