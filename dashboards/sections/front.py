"""Show the front: the main figure, its points as a table, and their plans."""

from __future__ import annotations

from typing import Any

import pandas as pd

from stepfront.dashboards.figures import beyond, front_data, front_figure, plans_data, plans_figure
from stepfront.dashboards.formatting import (
    decimal,
    equal_point,
    interval,
    percent,
    plural,
    ratio,
    short_plan,
    significant,
)
from stepfront.dashboards.html.page import embedded, html_table, paragraph
from stepfront.dashboards.sections.clicked_point import clicked_point
from stepfront.dashboards.sections.own_scores import own_score_columns, own_scores_of
from stepfront.tables.samplers import sampler_texts
from stepfront.tables.search_tables import SearchTables, rows

PLAN_LENGTH = 400


def front_section(tables: SearchTables) -> str:
    """Return the main figure, FID against GFLOPs."""
    if tables.front.empty:
        return ""
    data = front_data(tables)
    thinned = f" {data.drawn:,} of {data.dominated:,} other trials are drawn." if data.drawn < data.dominated else ""
    caption = (
        "Lower left is better. The line shows the best FID that the search found at or below each cost; points above "
        f"and to the right of it are dominated. Move the slider to see the search progress; click a point to see its "
        f"plan; press Select and drag to find points in every figure and table.{thinned}{_above(beyond(data))}"
    )
    return embedded("front", front_figure(data), caption) + clicked_point(tables)


def _above(count: int) -> str:
    if not count:
        return ""
    lie = "lies" if count == 1 else "lie"
    return f" {plural(count, 'point')} with a far higher FID {lie} above; a double click shows all."


def points_section(tables: SearchTables) -> str:
    """Return the front as a table."""
    columns = ["label", ">trial", "plan", ">GFLOPs", ">of full", ">FID", ">confirmed", "interval", "on the front"]
    beside = bool(tables.front.kid.notna().any())
    columns += [">KID", "interval", ">precision", ">recall"] if beside else []
    second = bool(tables.front.second_confirmed.notna().any())
    columns += [">second judge", "interval"] if second else []
    extrapolated = bool(tables.front.fid_infinity.notna().any())
    columns += [">FID-infinity"] if extrapolated else []
    noisy = bool((tables.front.within_noise >= 0).any())
    columns += [">within noise of"] if noisy else []
    columns += own_score_columns(tables)
    samplers = sampler_texts(tables.front)
    columns[3:3] = ["sampler"] if samplers else []
    points = [
        [
            row.label.replace(",", ", "),
            row.trial,
            short_plan(row.plan, PLAN_LENGTH),
            *samplers[place : place + 1],
            significant(row.gflops),
            percent(ratio(row.gflops, tables.full.gflops)),
            decimal(row.fid),
            decimal(row.fid_confirmed),
            interval(row.fid_low, row.fid_high),
            _belongs(row.fid_confirmed, row.belongs),
            *(_beside_fid(row) if beside else []),
            *([decimal(row.second_confirmed), interval(row.second_low, row.second_high)] if second else []),
            *([decimal(row.fid_infinity)] if extrapolated else []),
            *([equal_point(row.within_noise)] if noisy else []),
            *own_scores_of(row, tables),
            significant(row.latency_ms),
            row.origin,
        ]
        for place, row in enumerate(rows(tables.front))
    ]
    return of_features(tables) + html_table((*columns, ">ms", "origin"), points, "points") if points else ""


def _beside_fid(row: Any) -> list[str]:
    ends = "" if pd.isna(row.kid_low) else f"[{significant(row.kid_low)}, {significant(row.kid_high)}]"
    return [significant(row.kid), ends, decimal(row.precision), decimal(row.recall)]


def of_features(tables: SearchTables) -> str:
    """Return a line with the features that a table's scores are computed on."""
    features = tables.facts.get("features")
    second = next((str(name) for name in tables.front.get("second_features", ()) if name), "")
    text = f"All scores are computed on the features {features}" if features else ""
    text += f", those of the second judge on {second}" if features and second else ""
    return paragraph(f"{text}." if text else "")


def _belongs(confirmed: float, belongs: bool) -> str:
    if pd.isna(confirmed):
        return "not confirmed"
    return "yes" if belongs else "no longer"


def plans_section(tables: SearchTables) -> str:
    """Return the heat map of widths."""
    data = plans_data(tables)
    if not data.widths.size:
        return ""
    drawn, points = len(data.labels), len(tables.front)
    thinned = f" {drawn} of {points} points are drawn." if drawn < points else ""
    caption = f"Each row is a plan of the front, with the cheapest at the bottom. Darker is wider.{thinned}"
    return embedded("plans", plans_figure(data), caption)
