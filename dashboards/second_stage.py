"""Show the second stage of the supernet that was searched: losses before and after, and what it cost."""

from __future__ import annotations

from stepfront.dashboards.formatting import MISSING, duration, significant
from stepfront.dashboards.html.page import html_table, paragraph
from stepfront.tables.adaptation import adaptation_sentence, group_costs
from stepfront.tables.search_tables import SearchTables, rows

LOSSES = ("group", "times", ">width", ">held-out loss before", ">after", ">change")
COSTS = ("group", "times", ">steps", ">images", ">TFLOPs", ">time", ">factor in the merged weights")


def second_stage_section(tables: SearchTables) -> str:
    """Return sentences and tables of a second stage; "" for a supernet without one."""
    table = tables.adaptation
    if table.empty:
        return ""
    losses = [
        (row.group, _times(row), f"{row.width:g}", f"{row.loss_before:.4f}", f"{row.loss_after:.4f}", _change(row))
        for row in rows(table)
    ]
    note = paragraph(
        "A loss is not an FID. The baseline of a gain is the same extra training FLOPs on the undivided supernet."
    )
    return (
        f"{paragraph(adaptation_sentence(table))}<h3>Losses</h3>{html_table(LOSSES, losses, 'second-stage')}{note}"
        f"<h3>Cost</h3>{_costs(tables)}"
    )


def _costs(tables: SearchTables) -> str:
    costs = group_costs(tables.adaptation)
    merged = bool(costs["factor"].notna().any())
    found = [
        (
            *(row.group, _times(row), f"{row.steps:,}", f"{row.images:,}", significant(row.gflops / 1000)),
            duration(row.seconds) if row.seconds == row.seconds else MISSING,
            *([f"{row.factor:g}"] if merged else []),
        )
        for row in rows(costs)
    ]
    return html_table(COSTS if merged else COSTS[:-1], found)


def _times(row: object) -> str:
    return f"{row.first_time} to {row.last_time}"  # type: ignore[attr-defined]


def _change(row: object) -> str:
    return f"{100 * (row.loss_after / row.loss_before - 1):+.1f}%"  # type: ignore[attr-defined]
