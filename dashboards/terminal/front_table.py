"""Draw the Pareto front as a terminal table: knee and best marked, with the columns that fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from stepfront.dashboards.formatting import decimal, equal_point, interval, percent, ratio, significant
from stepfront.dashboards.terminal.fitted_table import FittedTable, TextColumn, cut_plan
from stepfront.tables.samplers import sampler_texts
from stepfront.tables.schema import confirmed_columns
from stepfront.tables.search_tables import rows

MARKED = ("knee", "best")
LEFT = "(left)"


def front_listing(
    front: pd.DataFrame,
    full_gflops: float | None = None,
    own: Sequence[str] = (),
    wide: bool = False,
    more: str = "--wide shows all",
) -> FittedTable:
    """Return the front as a table.  The share of full width needs the cost of full width.

    `own` are a user's own scores; of each the confirmed value is shown where there is one.  `wide` draws all columns
    and complete plans on a terminal of any width.
    """
    points, samplers = list(rows(front)), sampler_texts(front)
    noisy = bool((front.get("within_noise", pd.Series(dtype=int)) >= 0).any())
    confirmed = bool(front.get("fid_confirmed", pd.Series(dtype=float)).notna().any())

    def numbers(name: str, texts: Sequence[str], rank: int = 0) -> TextColumn:
        return TextColumn(name, texts, rank, right=True)

    columns = [
        TextColumn("point", [_point(point) for point in points]),
        numbers("trial", [str(point.trial) for point in points]),
        TextColumn("plan", [str(point.plan) for point in points], shorten=cut_plan, least=20),
        *([TextColumn("sampler", samplers)] if samplers else []),
        numbers("GFLOPs", [significant(point.gflops) for point in points]),
        numbers("of full", [percent(ratio(point.gflops, full_gflops)) for point in points], rank=2),
        numbers("FID", [decimal(point.fid) for point in points]),
        *([numbers("confirmed", [_confirmed(point) for point in points], rank=1)] if confirmed else []),
        *(numbers(name, [significant(_own(point, name)) for point in points], rank=3) for name in own),
        numbers("latency ms", [significant(point.latency_ms) for point in points], rank=4),
        *([numbers("within noise of", [equal_point(p.within_noise) for p in points], rank=5)] if noisy else []),
    ]
    features = [] if front.empty else [f for f in front.get("features", pd.Series(dtype=str)).unique() if f]
    caption = f"FID on features: {', '.join(map(str, features))}" if features else ""
    return FittedTable(columns, [_style(point) for point in points], caption, wide, more)


def _point(point: Any) -> str:
    return str(point.label or "").replace(",", ", ") if point.belongs else LEFT


def _style(point: Any) -> str:
    if not point.belongs:
        return "dim"
    return "bold" if set(MARKED) & set(str(point.label or "").split(",")) else ""


def _confirmed(point: Any) -> str:
    return f"{decimal(point.fid_confirmed)} {interval(point.fid_low, point.fid_high)}".rstrip()


def _own(point: Any, name: str) -> Any:
    confirmed = getattr(point, confirmed_columns(name)[0], None)
    return getattr(point, name, None) if confirmed is None or pd.isna(confirmed) else confirmed
