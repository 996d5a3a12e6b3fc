"""Show which steps matter: the measured gap, and how the model of FID reacts to each stretch of steps."""

from __future__ import annotations

import math

from stepfront.dashboards.figures.steps import (
    ModelCheck,
    gap_data,
    gap_figure,
    model_check,
    sensitivity_data,
    sensitivity_figure,
)
from stepfront.dashboards.formatting import percent, plural
from stepfront.dashboards.html.page import embedded, paragraph
from stepfront.tables.search_tables import SearchTables

LEAST_TAU = 0.5
"""Rank correlation below which a search does not use its model, and the report doubts it."""


def steps_section(tables: SearchTables) -> str:
    """Return both figures side by side; "" where the search has neither table."""
    gap, sensitivity = gap_data(tables), sensitivity_data(tables)
    figures = []
    if gap:
        caption = (
            "Measured before the search on held-out images: by how much each width predicts the noise worse than full "
            "width. It is a loss of single steps, not a FID."
        )
        figures.append(embedded("gap", gap_figure(gap), caption))
    if sensitivity:
        plans = int(tables.sensitivity["plans"].max())
        caption = (
            "Learnt from the trials: how much higher the model of FID expects FID if these steps alone had the width "
            f"instead of full width, mean over the plans of the front that take them ({plans} at most). "
            f"{_checked(model_check(tables))}"
        )
        figures.append(embedded("sensitivity", sensitivity_figure(sensitivity), caption))
    if not figures:
        return ""
    note = "Where a line is high, a narrow width costs quality; where it is near zero, a narrow width is good enough."
    return paragraph(note) + f'<div class="beside">{"".join(f"<div>{figure}</div>" for figure in figures)}</div>'


def _checked(check: ModelCheck | None) -> str:
    """Return what leaving each trial out says of the model."""
    if check is None:
        return "The model could not be checked on trials that it has not learnt."
    tau = "" if math.isnan(check.tau) else f", Kendall's τ {check.tau:.2f}"
    text = (
        f"Checked by leaving each trial out: the predictions explain {percent(max(0.0, check.explained))} of the "
        f"variance of log FID over {plural(check.trials, 'trial')}{tau}."
    )
    doubtful = check.explained < 0.5 or check.tau < LEAST_TAU
    return f"{text} That is too little to rely on this figure." if doubtful else text
