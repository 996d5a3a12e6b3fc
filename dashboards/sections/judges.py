"""Show how far the judges can be believed: their examinations on real images with known harm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepfront.dashboards.formatting import decimal, significant
from stepfront.dashboards.html.page import embedded, html_table, paragraph
from stepfront.dashboards.score_figures.judges import judges_data, judges_figure
from stepfront.tables.search_tables import SearchTables

ROLES = {"search": "search", "confirm": "second judge"}


def judges_section(tables: SearchTables) -> str:
    """Return the examinations as a table and a figure; "" where no judge was examined."""
    if not tables.judges:
        return ""
    note = paragraph(
        "Each judge has scored held-out real images as they are, and harmed in five ways. Its score must rise with the "
        "harm, and its features must vary in several directions (participation ratio 2 or more)."
    )
    columns = (
        "judge",
        "features",
        ">dimensions",
        ">participation ratio",
        ">real images",
        ">their score",
        "examination",
    )
    table = html_table(columns, [_row(judge) for judge in tables.judges])
    data = judges_data(tables)
    caption = "Score of harmed images as a multiple of that of real ones. A line that falls is an order that is wrong."
    return note + table + (embedded("judges", judges_figure(data), caption) if data else "")


def _row(judge: Mapping[str, Any]) -> tuple[Any, ...]:
    failures = judge.get("failures") or []
    verdict = f"failed: {'; '.join(map(str, failures))}" if failures else "passed"
    role = ROLES.get(str(judge.get("role")), "") if judge.get("used") else "not used"
    ratio, count = decimal(judge.get("ratio"), 1), judge.get("images")
    return role, judge.get("features"), judge.get("dimensions"), ratio, count, significant(judge.get("floor")), verdict
