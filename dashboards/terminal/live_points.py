"""Choose the points of a growing front that the live view shows, and draw them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stepfront.dashboards.formatting import decimal, significant
from stepfront.dashboards.terminal.fitted_table import FittedTable, TextColumn, cut_plan

MOST_POINTS = 8


class LivePoint(NamedTuple):
    """A point of the front of a running search; `label` is knee, best or cheapest, or several, or empty."""

    gflops: float
    fid: float
    plan: str
    label: str = ""


def points_to_show(front: Sequence[LivePoint], most: int = MOST_POINTS) -> list[LivePoint]:
    """Return at most so many points of a front, in its order: those with a label, and others spread evenly."""
    if len(front) <= most:
        return list(front)
    chosen = {i for i, point in enumerate(front) if point.label}
    others = [i for i in range(len(front)) if i not in chosen]
    room = max(0, most - len(chosen))
    chosen |= {others[(2 * k + 1) * len(others) // (2 * room)] for k in range(room)}
    return [front[i] for i in sorted(chosen)]


def live_table(front: Sequence[LivePoint]) -> FittedTable:
    """Return a table of the points to show, with the number of those that are not shown."""
    shown = points_to_show(front)
    columns = [
        TextColumn("point", [point.label.replace(",", ", ") for point in shown]),
        TextColumn("GFLOPs", [significant(point.gflops) for point in shown], right=True),
        TextColumn("FID", [decimal(point.fid) for point in shown], right=True),
        TextColumn("plan", [point.plan for point in shown], shorten=cut_plan),
    ]
    hidden = len(front) - len(shown)
    caption = f"{hidden} more of {len(front)} points on the front" if hidden else ""
    return FittedTable(columns, ["bold" if point.label else "" for point in shown], caption)
