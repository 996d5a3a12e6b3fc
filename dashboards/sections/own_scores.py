"""Show the scores beside FID: columns of the points table, and a figure of each against FLOPs."""

from __future__ import annotations

from typing import Any

from stepfront.dashboards.formatting import significant
from stepfront.dashboards.html.page import embedded, paragraph
from stepfront.dashboards.score_figures.own_scores import own_score_figure, own_scores_data
from stepfront.tables.schema import confirmed_columns
from stepfront.tables.search_tables import SearchTables


def own_score_columns(tables: SearchTables) -> list[str]:
    """Return the columns of the points table, three per score that has values."""
    return [name for score in tables.own_scores for name in _columns(str(score["name"]), tables)]


def own_scores_of(row: Any, tables: SearchTables) -> list[str]:
    """Return the cells of one front point."""
    cells = []
    for score in tables.own_scores:
        name = str(score["name"])
        mean, low, high = (getattr(row, column, None) for column in confirmed_columns(name))
        ends = f"[{significant(low)}, {significant(high)}]" if low is not None and low == low else ""
        values = {f">{name}": significant(getattr(row, name, None))}
        values |= {f">{name} confirmed": significant(mean), "interval": ends}
        cells += [values[column] for column in _columns(name, tables)]
    return cells


def _columns(name: str, tables: SearchTables) -> list[str]:
    confirmed = confirmed_columns(name)[0]
    columns = [f">{name}"] if name in tables.front else []
    return columns + ([f">{name} confirmed", "interval"] if confirmed in tables.front else [])


def own_scores_section(tables: SearchTables) -> str:
    """Draw each score against FLOPs; "" where there is none."""
    data = own_scores_data(tables)
    if not data:
        return ""
    note = "Front points and other trials on each score of your own; bars are 95% intervals over held-out noise seeds."
    figures = [
        f"<div>{embedded(f'own-{score.name}', own_score_figure(score), f'{score.name} against FLOPs')}</div>"
        for score in data
    ]
    return paragraph(note) + f'<div class="beside">{"".join(figures)}</div>'
