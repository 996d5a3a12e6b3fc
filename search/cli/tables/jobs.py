"""Draw a cluster's jobs as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stepfront.dashboards.terminal.fitted_table import FittedTable, TextColumn, cut_text


def job_table(jobs: Sequence[Mapping[str, Any]]) -> FittedTable:
    """Return the table, one line per job, from the values that `status --json` prints."""
    return FittedTable(
        [
            TextColumn("job", [str(job["job"]) for job in jobs]),
            TextColumn("status", [str(job["status"]) for job in jobs]),
            TextColumn("running for", [_age(job["minutes"]) for job in jobs], right=True),
            TextColumn("directory", [str(job["directory"]) for job in jobs], shorten=cut_text, least=12),
        ]
    )


def _age(minutes: float | None) -> str:
    return "not begun" if minutes is None else f"{minutes:.1f} min"
