"""Show a point that was clicked: its scores, its plan, its times, and its images where some were drawn."""

from __future__ import annotations

import json
from typing import Any

from stepfront.dashboards.formatting import decimal, interval, short_plan, significant
from stepfront.tables.samplers import sampler_texts
from stepfront.tables.search_tables import SearchTables, rows

PLAN_LENGTH = 400
MOST_POINTS = 500
MOST_TIMES = 100


def clicked_point(tables: SearchTables) -> str:
    """Return an empty panel and the front's points as JSON, from which the page's script fills it."""
    shown = tables.front.head(MOST_POINTS)
    points = {str(row.trial): _point(row) for row in rows(shown)}
    for point, sampler in zip(points.values(), sampler_texts(shown), strict=False):
        point["facts"]["sampler"] = sampler
    # Escaped, a "<" inside JSON's strings can't end the script.
    content = json.dumps(points).replace("<", "\\u003c")
    return (
        '<aside id="clicked" class="clicked" aria-live="polite" hidden></aside>'
        f'<script type="application/json" id="clicked-data">{content}</script>'
    )


def _point(row: Any) -> dict[str, Any]:
    confirmed = decimal(row.fid_confirmed)
    facts = {"GFLOPs": significant(row.gflops), "ms": significant(row.latency_ms), "FID": decimal(row.fid)}
    facts["confirmed"] = f"{confirmed} {interval(row.fid_low, row.fid_high)}".rstrip()
    times = getattr(row, "times", None)
    times = [] if times is None else [float(f"{time:.4g}") for time in times][:MOST_TIMES]
    return {"label": row.label, "plan": short_plan(row.plan, PLAN_LENGTH), "facts": facts, "times": times}
